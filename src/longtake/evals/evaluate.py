"""Metrics of a model on a world: adherence to prompts, drift over time, spread across seeds, and speed.

    held-out prompts --> takes --> judge: adherence       metrics: flicker, smoothness, dynamics, sharpness, ...
                                   features: distance to the rendered truth, spread across seeds, consistency
    changing prompts --> whether the judge sees the change, and after how long
    one long take per prompt --> the same metrics of its first part and of each later part: drift

The rendered truth of the same prompts, encoded and decoded by the codec, has the same metrics: the table's first row.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from math import isnan
from statistics import mean

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.core.shapes import Pictures
from longtake.evals.fidelity import fidelity
from longtake.evals.judge import NO_SUBJECT, SECONDS, Judge, Progress
from longtake.evals.metrics import (
    brightness,
    contrast,
    dynamics,
    flicker,
    moving_sharpness,
    saturation,
    sharpness,
    smoothness,
)
from longtake.evals.prompts import TASKS, Asked, Switch, asked_of, still_of, switches_of
from longtake.evals.statistics import Metric, frechet_distance, metric, spread
from longtake.evals.stillness import stillness
from longtake.flow.distortion import excess_change, moving_psnr, psnr
from longtake.media.frames import from_pictures, to_pictures
from longtake.nets.light_codec import CodecState
from longtake.sample.cues import TimedPrompt
from longtake.sample.model import Model
from longtake.studio.generate import generate
from longtake.worlds.render import render
from longtake.worlds.scenes import Scene, WorldConfig

OF_A_CLIP: Mapping[str, Callable[[Pictures], float]] = {
    "flicker": flicker,
    "smoothness": smoothness,
    "dynamics": dynamics,
    "sharpness": sharpness,
    "sharpness of what moves": moving_sharpness,
    "contrast": contrast,
    "saturation": saturation,
    "brightness": brightness,
}
DRIFTING = ("sharpness", "contrast", "saturation", "brightness")
PART_S = 5.0  # length in seconds of the parts of a long take that are compared with its first part
DRIFT_OVER_S = (10, 30, 300)  # lengths in seconds over which drift is reported, if the takes are long enough


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationPlan:
    """Extent of an evaluation; the teacher only generates clips of its own length, so it makes no long takes."""

    prompts: int = 32  # number of held-out prompts
    seeds: int = 4  # number of seeds for the spread
    spread_prompts: int = 4  # number of prompts for the spread
    switches: int = 12  # number of takes with a change of prompt
    given: int = 12  # number of prompts whose scenes are given as a picture and as a source
    still: int = 8  # number of prompts under which nothing moves
    kept: int = 8  # number of takes whose subject is checked in each second
    kept_s: float = 20.0  # length of these takes
    long_takes: int = 2  # number of takes for drift
    long_s: float = 30.0  # length of these takes


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Metrics of the parts of long takes, relative to their first part; 1 is no drift."""

    at_s: Sequence[float]  # start of each part, in seconds
    per_second: Mapping[int, Metric]  # length in seconds -> change per second of the metric that changes most
    ratios: Mapping[str, Sequence[float]]  # metric -> ratio to the first part, for each part
    adherence: Sequence[float]  # share of correct subjects and places, for each part


@dataclass(frozen=True, kw_only=True)
class Example:
    """A judged take, with the expected class and the judge's answer for each task."""

    prompt: str
    clip: Pictures
    expected: Mapping[str, str]
    answers: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class EvaluationRow:
    """One row of the table: a model, or the rendered truth."""

    name: str
    metrics: Mapping[str, Metric]
    values: Mapping[str, Sequence[float]] = field(default_factory=dict)  # metric -> values of the single prompts
    drift: Drift | None = None
    examples: Sequence[Example] = field(default=())
    features: Float[Tensor, "clips d"] | None = None  # judge's features, for the distance to the truth


def truth_row(
    model: Model, world: WorldConfig, judge: Judge, plan: EvaluationPlan, progress: Progress
) -> EvaluationRow:
    """Row of the prompts' rendered scenes after the model's codec: the upper bound for a model."""
    asked = asked_of(world, plan.prompts)
    clips = []
    coded: dict[str, list[float]] = {}
    for one in asked:
        scene = replace(one.scene.lasting(_clip_frames(model)), height_px=model.size.height, width_px=model.size.width)
        clip, found = _through_codec(model, scene)
        clips.append(clip)
        _, still = _through_codec(model, scene.at_rest())
        found["codec: change of what is still, levels"] = still["codec: change, levels"]
        for key, value in found.items():
            coded.setdefault(key, []).append(value)
        progress("rendered truth", len(clips), len(asked), {})
    metrics, values, examples, features = _of_clips(asked, clips, None, model.fps, judge)
    # The PSNR of moving pixels is NaN where nothing moves.
    metrics |= {key: metric(known) for key, each in coded.items() if (known := [x for x in each if not isnan(x)])}
    name = "rendered truth, through the codec"
    return EvaluationRow(name=name, metrics=metrics, values=values, examples=examples, features=features)


def _through_codec(model: Model, scene: Scene) -> tuple[Pictures, dict[str, float]]:
    """Reconstruction of a scene's clip by the codec, and metrics of its difference from the clip."""
    truth = render([scene])[0]
    video = from_pictures(truth).to(model.dit.device)
    with torch.inference_mode():
        latent, _ = model.codec.encode(video, CodecState())
        decoded = model.codec.decode(latent, CodecState())[0].clamp(-1, 1)
    clip = to_pictures(decoded)
    return clip, {
        "codec: PSNR, dB": float(psnr((decoded - video).square().mean())),
        "codec: PSNR of what moves, dB": moving_psnr(decoded, video),
        "codec: sharpness of what moves, of the truth's": moving_sharpness(clip) / max(moving_sharpness(truth), 1e-6),
        "codec: change, levels": float(excess_change(decoded, video)),
    }


def model_row(
    name: str,
    model: Model,
    world: WorldConfig,
    judge: Judge,
    plan: EvaluationPlan,
    truth: EvaluationRow,
    progress: Progress,
) -> EvaluationRow:
    """Row with all metrics of a model; `truth` is the row of `truth_row` with the same plan."""
    asked = asked_of(world, plan.prompts)
    seconds = _clip_s(model)
    clips, first_s, fps = [], [], []
    for seed, one in enumerate(asked):
        clip, first, rate = _timed(model, one.prompt, seconds, seed)
        clips.append(clip)
        first_s.append(first)
        fps.append(rate)
        progress(f"{name}: prompts", len(clips), len(asked), {"fps": rate})
    metrics, values, examples, features = _of_clips(asked, clips, truth.features, model.fps, judge)
    metrics |= {"first frames, s": metric(first_s[1:]), "frames/s": metric(fps[1:])}
    metrics["spread across seeds"] = metric(list(_spreads(name, model, asked, judge, plan, progress)))
    followed = list(_followed(name, model, world, judge, plan, progress))
    metrics["change followed"] = metric([float(delay is not None) for delay in followed])
    if delays := [delay for delay in followed if delay is not None]:
        metrics["change seen after, s"] = metric(delays)
    if not model.is_teacher:
        metrics |= _still(name, model, world, plan, progress)
        metrics |= _kept(name, model, asked, judge, plan, progress)
        metrics |= fidelity(name, model, asked[: plan.given], judge, progress)
    drift = None if model.is_teacher else _drift(name, model, asked, judge, plan, progress)
    if drift is not None:
        metrics |= {f"drift a second, over {over_s} s": value for over_s, value in drift.per_second.items()}
    return EvaluationRow(name=name, metrics=metrics, values=values, drift=drift, examples=examples, features=features)


def _of_clips(
    asked: Sequence[Asked], clips: Sequence[Pictures], truth: Tensor | None, fps: float, judge: Judge
) -> tuple[dict[str, Metric], dict[str, list[float]], list[Example], Tensor]:
    """Metrics of clips, their values for the single prompts, examples, and the judge's features.

    `truth` holds the features of the rendered truth; None: the clips are the rendered truth.
    """
    seen = judge.see(clips, fps)
    examples = [
        Example(
            prompt=one.prompt,
            clip=clip,
            expected=one.expected,
            answers={task: seen.answers[task][i] for task in TASKS},
        )
        for i, (one, clip) in enumerate(zip(asked, clips, strict=True))
    ]
    met = [{task: e.answers[task] == wanted for task, wanted in e.expected.items()} for e in examples]
    values = {"adherence": [mean(m.values()) for m in met]}
    values["all of the prompt"] = [float(all(m.values())) for m in met]
    for task in TASKS:
        if found := [float(m[task]) for m in met if task in m]:
            values[f"adherence: {task}"] = found
    values |= {name: [measure(clip) for clip in clips] for name, measure in OF_A_CLIP.items()}
    frames = torch.nn.functional.normalize(seen.frame_features, dim=-1)
    values["consistency"] = (frames[:, 1:] * frames[:, :1]).sum(-1).mean(1).tolist()
    metrics = {name: metric(each) for name, each in values.items()}
    distance = frechet_distance(seen.features, seen.features if truth is None else truth)
    metrics["distance to the truth"] = Metric(value=distance, low=distance, high=distance, num=len(clips))
    return metrics, values, examples, seen.features


def _spreads(
    name: str, model: Model, asked: Sequence[Asked], judge: Judge, plan: EvaluationPlan, progress: Progress
) -> Iterator[float]:
    """Yield for each prompt the mean distance between features of takes with different seeds."""
    few = asked[: plan.spread_prompts]
    for num, one in enumerate(few, 1):
        clips = [_timed(model, one.prompt, SECONDS, 1000 + seed)[0] for seed in range(plan.seeds)]
        yield spread(judge.see(clips, model.fps).features)
        progress(f"{name}: seeds", num, len(few), {})


def _still(name: str, model: Model, world: WorldConfig, plan: EvaluationPlan, progress: Progress) -> dict[str, Metric]:
    """Metrics of takes in which nothing should move."""
    found = []
    for num, one in enumerate(few := still_of(world, plan.still), 1):
        chunks = list(generate(model, (TimedPrompt(at_s=0.0, prompt=one.prompt),), seconds=_clip_s(model), seed=num))
        lengths = [len(chunk.frames) for chunk in chunks]
        found.append(stillness(torch.cat([c.frames for c in chunks]), list(accumulate(lengths))[:-1]))
        progress(f"{name}: stillness", num, len(few), {})
    return {
        "still: change, levels": metric([one.change for one in found]),
        "still: rhythm": metric([one.rhythm for one in found]),
        "still: chunk borders": metric([one.border for one in found]),
    }


def _kept(
    name: str, model: Model, asked: Sequence[Asked], judge: Judge, plan: EvaluationPlan, progress: Progress
) -> dict[str, Metric]:
    """Share of the seconds with the correct subject, among those of long takes in which the judge sees a subject."""
    shares = []
    for num, one in enumerate(few := asked[: plan.kept], 1):
        clip, _, _ = _timed(model, one.prompt, plan.kept_s, 2000 + num)
        seen = [subject for subject in judge.subjects_over_time(clip, model.fps) if subject != NO_SUBJECT]
        shares.append(mean(subject == one.expected["subject"] for subject in seen) if seen else 0.0)
        progress(f"{name}: subjects", num, len(few), {})
    return {"subject kept": metric(shares)}


def _followed(
    name: str, model: Model, world: WorldConfig, judge: Judge, plan: EvaluationPlan, progress: Progress
) -> Iterator[float | None]:
    """Yield for each change of prompt the seconds from the cue until the judge sees it; None: the judge does not."""
    switches = switches_of(world, plan.switches)
    chunk_s = model.preset.stream.chunk * model.preset.codec.stride.time / model.fps
    seconds = _clip_s(model) if model.is_teacher else 3 * SECONDS
    for num, switch in enumerate(switches, 1):
        yield _seen_after(model, switch, judge, int(seconds / 2 / chunk_s) * chunk_s, seconds)
        progress(f"{name}: changes", num, len(switches), {})


def _seen_after(model: Model, switch: Switch, judge: Judge, at_s: float, seconds: float) -> float | None:
    cues = (TimedPrompt(at_s=0.0, prompt=switch.opening), TimedPrompt(at_s=at_s, prompt=switch.changed))
    clip = torch.cat([chunk.frames for chunk in generate(model, cues, seconds=seconds, seed=switch.scene.seed)])
    begin, looked_at, step = round(at_s * model.fps), round(model.fps), max(1, round(model.fps / 4))
    starts = range(begin, len(clip) - looked_at + 1, step)
    answers = judge.see([clip[start : start + looked_at] for start in starts], model.fps).answers[switch.task]
    # A change counts as seen only if all later answers, up to the end of the take, agree with it.
    late = next((i for i in range(len(answers)) if all(a == switch.after for a in answers[i:])), None)
    return None if late is None else (starts[late] - begin) / model.fps


def _drift(
    name: str, model: Model, asked: Sequence[Asked], judge: Judge, plan: EvaluationPlan, progress: Progress
) -> Drift:
    """Metrics of each part of long takes, relative to the first part."""
    few = asked[: plan.long_takes]
    num_parts = int(plan.long_s / PART_S)
    part = round(PART_S * model.fps)
    found: dict[str, list[list[float]]] = {metric_name: [] for metric_name in DRIFTING}
    met: list[list[float]] = []
    for num, one in enumerate(few, 1):
        pieces: list[Pictures] = []
        values: list[dict[str, float]] = []
        met.append([])
        for chunk in generate(model, (TimedPrompt(at_s=0.0, prompt=one.prompt),), seconds=plan.long_s, seed=num):
            pieces.append(chunk.frames)
            while sum(map(len, pieces)) >= part and len(values) < num_parts:
                clip = torch.cat(pieces)
                pieces = [clip[part:]]
                values.append({metric_name: OF_A_CLIP[metric_name](clip[:part]) for metric_name in DRIFTING})
                answers = judge.see([clip[:part]], model.fps).answers
                met[-1].append(mean(answers[task][0] == one.expected[task] for task in ("subject", "place")))
                progress(f"{name}: long takes", (num - 1) * num_parts + len(values), len(few) * num_parts, {})
        for metric_name in DRIFTING:
            found[metric_name].append([v[metric_name] / values[0][metric_name] for v in values])
    return Drift(
        at_s=[i * PART_S for i in range(len(met[0]))],
        per_second={
            over_s: metric([_per_second([rows[i] for rows in found.values()], over_s) for i in range(len(few))])
            for over_s in DRIFT_OVER_S
            if over_s <= plan.long_s
        },
        ratios={k: [mean(column) for column in zip(*rows, strict=True)] for k, rows in found.items()},
        adherence=[mean(column) for column in zip(*met, strict=True)],
    )


def _per_second(ratios: Sequence[Sequence[float]], over_s: int) -> float:
    """Largest relative change of a metric of one take over `over_s` seconds, divided by the time between the parts."""
    last = int(over_s / PART_S) - 1
    return max(abs(values[last] - 1) for values in ratios) / (last * PART_S)


def _timed(model: Model, prompt: str, seconds: float, seed: int) -> tuple[Pictures, float, float]:
    """Frames of a take, seconds until the first ones, and frames per second."""
    begun, first, parts = time.perf_counter(), 0.0, []
    for chunk in generate(model, (TimedPrompt(at_s=0.0, prompt=prompt),), seconds=seconds, seed=seed):
        parts.append(chunk.frames)
        first = first or time.perf_counter() - begun
    clip = torch.cat(parts)
    return clip, first, len(clip) / (time.perf_counter() - begun)


def _clip_s(model: Model) -> float:
    return _clip_frames(model) / model.fps


def _clip_frames(model: Model) -> int:
    return model.preset.codec.stride.frames(model.preset.clip_latent_frames)

"""The judge: a small network that classifies what a clip shows, trained on rendered truth, tested on held-out scenes.

    frames -> convolutions -> a feature map of each frame
        map -> scores of the subjects at every cell -> summed over the cells: subject, in each frame
            -> attention to cells with high scores: features, position and extent of the subject in each frame
               -> convolutions over time: motion, direction
        map -> means over a coarse grid and over time: place, time of day, weather

Its input is nine frames of 160x96 spread over two seconds. Training clips are blurred, noisy and tinted as generated
ones may be, so that answers depend on content and not on sharpness. Some show no subject, so that it can answer that
there is none.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from longtake.core.errors import WeightsError
from longtake.core.files import atomic
from longtake.core.noise import rng_for
from longtake.core.shapes import Pictures
from longtake.evals.prompts import TASKS, calm, facts
from longtake.weights.checkpoint import digest
from longtake.worlds.assets import place_named
from longtake.worlds.render import render
from longtake.worlds.sampling import sample_scene
from longtake.worlds.scenes import Split, WorldConfig

FRAMES = 9  # number of input frames
SECONDS = 2.0  # time over which the input frames are spread
HEIGHT, WIDTH = 96, 160
WIDTHS = (32, 48, 64)  # channels of the convolutions
TRACK = 32  # number of features of the subject that are followed over time
GRID, THUMBNAIL = (3, 5), (6, 10)  # rows and columns of pooled features and of pooled pixels, for place and time
RENDER_BATCH = 20
NO_SUBJECT = "none"
EMPTY_SHARE = 0.06  # share of training clips without a subject
MOVING_TASKS = ("motion", "direction")  # tasks answered from the track of the subject over time

Progress = Callable[[str, int, int, Mapping[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Answers of the judge for some clips, and its features."""

    answers: Mapping[str, Sequence[str]]  # task -> answer for each clip
    features: Float[Tensor, "b d"]
    frame_features: Float[Tensor, "b f e"]


@dataclass(frozen=True, slots=True)
class Observation:
    """Intermediate results of the network for some clips."""

    subject: Float[Tensor, "b f n"]  # log-probabilities of the subjects in each frame; the last one: no subject
    scene: Float[Tensor, "b f e"]  # features and pixels, averaged over coarse grids
    track: Float[Tensor, "b d f"]  # features of the subject over time


class JudgeBlock(nn.Module):
    """Residual block of two convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Judge(nn.Module):
    """The network of the module's docstring.

    `classes` holds the possible answers of each task, `accuracy` the share of correct answers on held-out scenes, and
    `digest` the hash of the judge's file.
    """

    def __init__(self, classes: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.classes = {task: tuple(names) for task, names in classes.items()}
        self.accuracy: dict[str, float] = {}
        self.digest = ""
        first, second, width = WIDTHS
        self.look = nn.Sequential(
            nn.Conv2d(6, first, 6, stride=4, padding=1),
            JudgeBlock(first),
            nn.Conv2d(first, second, 4, stride=2, padding=1),
            JudgeBlock(second),
            nn.Conv2d(second, width, 1),
            JudgeBlock(width),
            nn.GroupNorm(8, width),
            nn.SiLU(),
        )
        subjects = len(self.classes["subject"]) - 1  # without `NO_SUBJECT`, which has no position in the picture
        self.subjects = nn.Conv2d(width, subjects, 1)
        self.nothing = nn.Parameter(torch.zeros(1))
        self.followed = nn.Linear(width, TRACK)
        self.over_time = nn.ModuleList(
            nn.Conv1d(before, after, 3, padding=1)
            for before, after in pairwise((TRACK + subjects + 5, width, width, width))
        )
        scene = width * math.prod(GRID) + 3 * math.prod(THUMBNAIL)
        inputs = {task: 2 * width if task in MOVING_TASKS else scene for task in self.classes}
        self.answers = nn.ModuleDict(
            {task: nn.Linear(inputs[task], len(names)) for task, names in self.classes.items() if task != "subject"}
        )

    def observe(self, frames: Float[Tensor, "b f c h w"]) -> Observation:
        """Intermediate results for clips of `FRAMES` frames, pixels in [-1, 1]."""
        shape = frames.shape[:2]
        changing = (frames - frames.mean(1, keepdim=True)).abs()
        cells = self.look(torch.cat((frames, changing), 2).flatten(0, 1))
        scores = self.subjects(cells).flatten(2)
        total = scores.logsumexp(2) - math.log(scores.shape[2])
        subject = torch.cat((total, self.nothing.expand(len(total), 1)), 1).log_softmax(1)
        weight = scores.amax(1).softmax(1)  # attention over the cells, high where the subject is
        centres = cell_centres(*cells.shape[2:]).to(cells)
        position = weight @ centres
        extent = (weight @ centres.square() - position.square()).clamp_min(1e-6).sqrt()
        features = self.followed(torch.einsum("bs,bds->bd", weight, cells.flatten(2)))
        seen = torch.cat((features, subject[:, :-1].exp(), 4 * position, 4 * extent, subject[:, -1:].exp()), 1)
        track = seen.unflatten(0, shape).transpose(1, 2)
        for idx, conv in enumerate(self.over_time):
            after = functional.silu(conv(track))
            track = track + after if idx else after
        # Places are fixed views, so a few large pixels identify much of the place and the time of day.
        thumbnail = functional.adaptive_avg_pool2d(frames.flatten(0, 1), THUMBNAIL).flatten(1)
        scene = torch.cat((functional.adaptive_avg_pool2d(cells, GRID).flatten(1), thumbnail), 1)
        return Observation(subject.unflatten(0, shape), scene.unflatten(0, shape), track)

    def decide(self, observed: Observation) -> dict[str, Tensor]:
        """Logits of each task from intermediate results."""
        moving = torch.cat((observed.track.mean(2), observed.track.amax(2)), 1)
        scene = observed.scene.mean(1)
        heads = {task: head(moving if task in MOVING_TASKS else scene) for task, head in self.answers.items()}
        return {"subject": observed.subject.mean(1), **heads}

    def forward(self, frames: Float[Tensor, "b f c h w"]) -> dict[str, Tensor]:
        """Logits of each task for clips of `FRAMES` frames, pixels in [-1, 1]."""
        return self.decide(self.observe(frames))

    @torch.inference_mode()
    def see(self, clips: Sequence[Pictures], fps: float) -> Judgement:
        """Judge the first `SECONDS` seconds of some clips."""
        observed = self.observe(torch.stack([as_seen(clip, fps) for clip in clips]))
        answers = {
            task: [self.classes[task][int(i)] for i in logits.argmax(1)]
            for task, logits in self.decide(observed).items()
        }
        clip = torch.cat((observed.scene.mean(1), observed.track.mean(2)), 1)
        return Judgement(answers=answers, features=clip, frame_features=observed.scene)

    @torch.inference_mode()
    def subjects_over_time(self, clip: Pictures, fps: float) -> list[str]:
        """Subject in each whole second of a clip; `NO_SUBJECT` where the judge sees none."""
        second = round(fps)
        pieces = [clip[start : start + second] for start in range(0, len(clip) - second + 1, second)]
        return list(self.see(pieces, fps).answers["subject"]) if pieces else []


def cell_centres(rows: int, columns: int) -> Float[Tensor, "s 2"]:
    """Centres (y, x) of a grid's cells, row by row, in [-1, 1]."""
    y, x = ((2 * torch.arange(n) + 1) / n - 1 for n in (rows, columns))
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).flatten(0, 1)


def frames_seen(length: int, fps: float) -> list[int]:
    """Indices of the frames of a clip that the judge reads; the last frame is repeated if the clip is too short."""
    return [min(round(i * SECONDS * fps / (FRAMES - 1)), length - 1) for i in range(FRAMES)]


def as_seen(clip: Pictures, fps: float) -> Float[Tensor, "f c h w"]:
    """Input of the judge for a clip: `FRAMES` resized frames, pixels in [-1, 1]."""
    return _small(clip[frames_seen(len(clip), fps)]).float() / 127.5 - 1


def _small(frames: Pictures) -> UInt8[Tensor, "f c h w"]:
    small = functional.interpolate(frames.permute(0, 3, 1, 2).float(), (HEIGHT, WIDTH), mode="area")
    return small.round().to(torch.uint8)


def classes_of(world: WorldConfig) -> dict[str, tuple[str, ...]]:
    """Possible answers of each task in a world."""
    hours = {place_named(p).time_of_day for p in world.places} | {"night", "sunset"}
    return dict(
        zip(
            TASKS,
            (
                (*world.subjects, *world.held_out_subjects, NO_SUBJECT),
                world.places,
                tuple(sorted({*world.motions, "stands still"})),
                ("left", "right"),
                tuple(sorted(hours)),
                ("clear", "fog", "rain", "snow"),
            ),
            strict=True,
        )
    )


def trained_judge(
    world: WorldConfig, progress: Progress, *, num_clips: int = 6000, steps: int = 3000, batch: int = 16, seed: int = 0
) -> Judge:
    """Train a judge on scenes of the training split and test it on held-out ones (`Judge.accuracy`)."""
    torch.manual_seed(seed)
    judge = Judge(classes_of(world))
    frames, labels = _truth(world, num_clips, "train", judge, progress)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.02)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, 20 * (step + 1) / steps, 2 * (1 - step / steps))
        rng = rng_for(seed, ("judge", step))
        rows = torch.randint(len(frames), (batch,), generator=rng)
        logits = judge(_weathered(frames[rows].float() / 127.5 - 1, rng))
        losses = [
            functional.cross_entropy(logits[task], labels[rows, i], ignore_index=-1)
            for i, task in enumerate(TASKS)
            if bool((labels[rows, i] >= 0).any())
        ]
        loss = torch.stack(losses).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        progress("training the judge", step + 1, steps, {"loss": loss.item()})
    judge.eval()
    frames, labels = _truth(world, max(num_clips // 8, 1), "held_out", judge, progress)
    judge.accuracy = _accuracy(judge, frames, labels)
    return judge


def judge_for(world: WorldConfig, path: Path, progress: Progress, **options: int) -> Judge:
    """The judge of a world, loaded from `path`, or trained and saved there if the file does not exist.

    Raises:
        WeightsError: the file holds the judge of another world, or no judge.
    """
    if not path.exists():
        judge = trained_judge(world, progress, **options)
        about = {"classes": judge.classes, "accuracy": judge.accuracy, "world": world.hash}
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as part:
            save_file(judge.state_dict(), part, {"judge": json.dumps(about)})
        judge.digest = digest([path])
        return judge
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["judge"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise WeightsError(f"{path} is no judge ({error}); remove it, and one is trained") from error
    if about["world"] != world.hash:
        raise WeightsError(f"{path} knows another world; give another folder, or remove it and one is trained")
    judge = Judge(about["classes"])
    judge.load_state_dict(weights)
    judge.accuracy, judge.digest = about["accuracy"], digest([path])
    return judge.eval()


def _truth(world: WorldConfig, num: int, split: Split, judge: Judge, progress: Progress) -> tuple[Tensor, Tensor]:
    """Rendered clips as uint8 frames [n, f, c, h, w], and class indices [n, tasks], -1 where a task has no answer."""
    often = replace(calm(world), weather_probability=0.4, time_probability=0.4)
    at = frames_seen(1 + round(SECONDS * world.fps), world.fps)
    shown = range(at[0], at[-1] + 1, at[1] - at[0])
    frames, labels = [], []
    for start in range(0, num, RENDER_BATCH):
        scenes = [sample_scene(often, seed, split) for seed in range(start, min(start + RENDER_BATCH, num))]
        empty = [split == "train" and seed % round(1 / EMPTY_SHARE) == 0 for seed in range(start, start + len(scenes))]
        drawn = [replace(s, actors=()) if gone else s for s, gone in zip(scenes, empty, strict=True)]
        for scene, gone, clip in zip(scenes, empty, render(drawn, frames=shown), strict=True):
            frames.append(_small(clip))
            true = facts(scene, scene.state_at(0))
            if gone:
                true = {"subject": NO_SUBJECT, **{task: true[task] for task in ("place", "time", "weather")}}
            labels.append([judge.classes[t].index(true[t]) if t in true else -1 for t in TASKS])
        progress(f"rendering for the judge ({split})", len(frames), num, {})
    return torch.stack(frames), torch.tensor(labels)


def _weathered(frames: Tensor, rng: torch.Generator) -> Tensor:
    """Frames with random blur, contrast, tint and noise."""
    num = len(frames)

    def draw(*shape: int) -> Tensor:
        return torch.rand((num, *shape), generator=rng)

    blurred = functional.avg_pool2d(frames.flatten(0, 1), 3, 1, 1, count_include_pad=False).view_as(frames)
    frames = torch.lerp(frames, blurred, draw(1, 1, 1, 1))
    tint = 0.15 * (2 * draw(1, 3, 1, 1) - 1)
    frames = frames * (0.8 + 0.4 * draw(1, 1, 1, 1)) + tint
    return frames + 0.1 * draw(1, 1, 1, 1) * torch.randn(frames.shape, generator=rng)


@torch.inference_mode()
def _accuracy(judge: Judge, frames: Tensor, labels: Tensor) -> dict[str, float]:
    """Share of correct answers for each task, over the clips where the task has an answer."""
    right = {task: [] for task in TASKS}
    for some, wanted_of_all in zip(frames.split(RENDER_BATCH), labels.split(RENDER_BATCH), strict=True):
        logits = judge(some.float() / 127.5 - 1)
        for i, task in enumerate(TASKS):
            wanted = wanted_of_all[:, i]
            right[task] += (logits[task].argmax(1) == wanted)[wanted >= 0].tolist()
    return {task: round(sum(found) / len(found), 4) for task, found in right.items() if found}

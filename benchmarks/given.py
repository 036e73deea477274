"""Pictures that are given: is an image kept, does a seam show, is the structure of a source followed?

python -m benchmarks.given [--model M] [--recipe R] [--split train] [--num 12] [--judge FILE] [--out out/given]

On scenes of pairs that training never showed (or, with --split train, new scenes of pairs that it did), one line of
JSON each for animate, extend and restyle, and a sheet each.

animate: PSNR of the first frame against the codec's own reconstruction of the picture, and against the picture.
extend:  difference of the first new frame from the last given one, over the clip's own median difference from frame
         to frame. 1 is no seam.
restyle: the plain look goes in, the full look is asked for; by the student alone at several strengths, and by the
         model's source adapter. Silhouette IoU: what differs from the clip's median over time, against the scene's true
         silhouettes; for the rendered full look itself the same measure gives `ceiling`. Luma PSNR against the
         rendered full look says how near the picture comes, against the plain one how much of the source is left.
         `adherence` is what the judge of `longtake evaluate` sees of what the scene shows.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean, median

import torch

import longtake
from longtake.core.shapes import Pictures
from longtake.evals.fidelity import iou, looks, luma, psnr, silhouettes
from longtake.evals.judge import Judge, judge_for
from longtake.evals.prompts import asked_of, facts
from longtake.media.frames import from_pictures, to_pictures
from longtake.media.sheets import Row, contact_sheet, save_sheet
from longtake.nets.light_codec import CodecState
from longtake.studio.studio import Studio
from longtake.studio.takes import Chunk
from longtake.train.run import load_recipe
from longtake.worlds.render import render
from longtake.worlds.scenes import Scene, WorldConfig
from longtake.worlds.splits import Split

SECONDS = 3.0
STRENGTHS = (0.5, 0.65, 0.8, 0.9, 1.0)  # strengths tried with the student alone
ADAPTED = (0.8, 1.0)  # strengths tried with the source adapter


def scenes_of(world: WorldConfig, split: Split, num: int, num_frames: int) -> list[tuple[Scene, str]]:
    """Scenes in which something moves, and prompts that say all that is seen: nothing changes but what was asked."""
    moving = [a for a in asked_of(world, 3 * num, split) if a.scene.actors[0].motion != "stands still"]
    return [(one.scene.lasting(num_frames), one.prompt) for one in moving[:num]]


def frame_differences(pictures: Pictures) -> list[float]:
    """Mean absolute difference of each frame from the one before it."""
    return [float(d) for d in (pictures[1:].float() - pictures[:-1].float()).abs().mean((1, 2, 3))]


def all_frames(chunks: Iterator[Chunk]) -> Pictures:
    """The pictures of a stream."""
    return torch.cat([chunk.frames for chunk in chunks])


def animated(studio: Studio, scene: Scene, prompt: str) -> tuple[dict[str, float], Row]:
    """A picture, moved by its caption."""
    picture = render([scene], frames=range(1))[0]
    codec = studio.model.codec
    with torch.inference_mode():
        latent, _ = codec.encode(from_pictures(picture), CodecState())
        own = to_pictures(codec.decode(latent, CodecState())[0])
    shown = all_frames(studio.animate(picture, prompt).stream(seconds=SECONDS))
    metrics = {
        "psnr_to_codec": psnr(shown[0], own[0]),
        "psnr_to_picture": psnr(shown[0], picture[0]),
        "second_frame_psnr": psnr(shown[1], picture[0]),
        "moved": float(silhouettes(shown).float().mean()),
    }
    return metrics, Row(pictures=torch.cat((picture, shown)), caption=f"animate: {prompt}")


def extended(studio: Studio, scene: Scene, prompt: str) -> tuple[dict[str, float], Row]:
    """A clip that goes on."""
    take = studio.extend(render([scene])[0], prompt)
    assert take.state.given is not None
    given = take.state.given.frames
    shown = all_frames(take.stream(seconds=SECONDS))
    own = frame_differences(shown[:given])
    seam = frame_differences(shown[given - 1 : given + 1])[0]
    after = frame_differences(shown[given:])
    ratio = median(own)
    return {"seam": seam / ratio, "after": median(after) / ratio}, Row(pictures=shown, caption=f"extend: {prompt}")


def restyled(studio: Studio, judge: Judge, scene: Scene, prompt: str, strength: float) -> tuple[dict[str, float], Row]:
    """The plain look of a scene, painted."""
    plain, full, truth = looks(scene, scene.num_frames)
    shown = all_frames(studio.restyle([plain], prompt, strength=strength).stream())
    num = min(len(shown), len(plain))
    shown, plain, full, truth = shown[:num], plain[:num], full[:num], truth[:num]
    metrics = {
        "iou": iou(silhouettes(shown), truth),
        "ceiling": iou(silhouettes(full), truth),
        "psnr_to_full": psnr(luma(shown), luma(full)),
        "psnr_to_plain": psnr(luma(shown), luma(plain)),
        "adherence": adherence(judge, shown, scene, studio.fps),
        "adherence_of_truth": adherence(judge, full, scene, studio.fps),
    }
    return metrics, Row(pictures=shown, caption=f"restyle at {strength:g}: {prompt}")


def adherence(judge: Judge, shown: Pictures, scene: Scene, fps: float) -> float:
    """Share of the scene's facts that the judge sees."""
    answers, wanted = judge.see([shown], fps).answers, facts(scene, scene.state_at(0))
    return mean(answers[task][0] == fact for task, fact in wanted.items())


def summed_up(name: str, metrics: list[dict[str, float]], **more: float | str) -> None:
    """One line: medians, of adherence the mean, and the worst seam."""
    middle = {key: mean if key.startswith("adherence") else median for key in metrics[0]}
    summary = {key: round(middle[key](f[key] for f in metrics), 3) for key in metrics[0]}
    if "seam" in summary:
        summary["seam_max"] = round(max(f["seam"] for f in metrics), 3)
    print(json.dumps({"case": name, "clips": len(metrics), **more, **summary}), flush=True)


def main() -> None:
    """Run all three."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.given", description="Measure what is given.")
    parser.add_argument("--model", default="tiny-world")
    parser.add_argument("--recipe", default="tiny-world")
    parser.add_argument("--split", choices=("held_out", "train"), default="held_out")
    parser.add_argument("--num", type=int, default=12)
    parser.add_argument(
        "--judge",
        type=Path,
        default=Path("benchmarks/baselines/tiny-world-judge.safetensors"),
        help="trained if missing",
    )
    parser.add_argument("--out", type=Path, default=Path("out/given"))
    options = parser.parse_args()
    world = load_recipe(options.recipe).world
    with longtake.open(options.model) as studio:
        num_frames = studio.clock.opening_frames + 3 * studio.clock.chunk_frames
        chosen = scenes_of(world, options.split, options.num, num_frames)
        for name, verb in (("animate", animated), ("extend", extended)):
            metrics, rows = zip(*(verb(studio, *scene) for scene in chosen), strict=True)
            summed_up(name, list(metrics))
            save_sheet(contact_sheet(rows, columns=8), options.out / f"{name}.png")
        model = studio.model
    judge = judge_for(world, options.judge, lambda *_: None)
    rows = [Row(pictures=render([scene], "plain")[0], caption=f"source: {prompt}") for scene, prompt in chosen[:3]]
    for by, strengths in (
        ("student", STRENGTHS),
        ("source_adapter", ADAPTED if model.source_adapter is not None else ()),
    ):
        with Studio(model if by == "source_adapter" else replace(model, source_adapter=None)) as studio:
            for strength in strengths:
                measured = [restyled(studio, judge, *scene, strength) for scene in chosen]
                summed_up("restyle", [metrics for metrics, _ in measured], by=by, strength=strength)
                rows += [replace(row, caption=f"{by}, {row.caption}") for _, row in measured[:3]]
    save_sheet(contact_sheet(rows, columns=8), options.out / "restyle.png")
    print(options.out)


if __name__ == "__main__":
    main()

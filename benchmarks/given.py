"""Pictures that are given: is an image kept, does a seam show, is the structure of a source followed?

python -m benchmarks.given [--model M] [--recipe R] [--num 12] [--out out/given]

On scenes that training never showed, one line of JSON each for animate, extend and restyle, and a sheet each.

animate: PSNR of the first frame against the codec's own reconstruction of the picture, and against the picture.
extend:  difference of the first new frame from the last given one, over the clip's own median difference from frame
         to frame. 1 is no seam.
restyle: the plain look goes in, the full look is asked for. Silhouette IoU: what differs from the clip's median over
         time, against the scene's true silhouettes; for the rendered full look itself the same measure gives `ceiling`.
         Luma PSNR against the rendered full look says how near the picture comes, against the plain one how much of the
         source is left.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from jaxtyping import Bool
from torch import Tensor

import longtake
from longtake.core.shapes import Pictures
from longtake.media.frames import from_pictures, to_pictures
from longtake.media.sheets import Row, contact_sheet, save_sheet
from longtake.nets.light_codec import CodecState
from longtake.studio.studio import Studio
from longtake.studio.takes import Chunk
from longtake.train.run import load_recipe
from longtake.worlds.captions import captions_for
from longtake.worlds.render import render
from longtake.worlds.scenes import Scene, WorldConfig, sample_scene

SECONDS = 3.0
STRENGTHS = (0.5, 0.65, 0.8, 0.9, 1.0)
MOVED = 24  # of 255: a pixel this far from the clip's median shows something that moves


def held_out_scenes(world: WorldConfig, num_frames: int) -> Iterator[tuple[Scene, str]]:
    """Scenes without events, one subject moving, and what they show."""
    seed = 0
    while True:
        scene = sample_scene(world, seed, split="held_out")
        if not scene.events and len(scene.actors) == 1 and scene.actors[0].motion != "stands still":
            yield scene.lasting(num_frames), captions_for(scene, seed)[0]
        seed += 1


def psnr(a: Tensor, b: Tensor) -> float:
    """Decibels, of values in 0..255; 99 where they are equal."""
    error = float((a.float() - b.float()).square().mean())
    return 99.0 if error == 0 else 10 * float(torch.log10(torch.tensor(255**2 / error)))


def luma(pictures: Pictures) -> Tensor:
    """Brightness of every pixel, 0..255."""
    return pictures.float() @ torch.tensor([0.2126, 0.7152, 0.0722])


def silhouettes(pictures: Pictures) -> Bool[Tensor, "frames height width"]:
    """What differs from the clip's median over time."""
    colours = pictures.float()
    return (colours - colours.median(0).values).abs().amax(-1) > MOVED


def iou(a: Tensor, b: Tensor) -> float:
    """Of two sets of pixels, over a whole clip."""
    return float((a & b).sum() / (a | b).sum().clamp_min(1))


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
    figures = {
        "psnr_to_codec": psnr(shown[0], own[0]),
        "psnr_to_picture": psnr(shown[0], picture[0]),
        "second_frame_psnr": psnr(shown[1], picture[0]),
        "moved": float(silhouettes(shown).float().mean()),
    }
    return figures, Row(pictures=torch.cat((picture, shown)), caption=f"animate: {prompt}")


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


def restyled(studio: Studio, scene: Scene, prompt: str, strength: float) -> tuple[dict[str, float], Row]:
    """The plain look of a scene, painted."""
    plain, full = render([scene], "plain")[0], render([scene])[0]
    empty = render([replace(scene, actors=())], "plain")[0]
    truth = (plain.float() - empty.float()).abs().amax(-1) > MOVED
    shown = all_frames(studio.restyle([plain], prompt, strength=strength).stream())
    num = min(len(shown), len(plain))
    shown, plain, full, truth = shown[:num], plain[:num], full[:num], truth[:num]
    figures = {
        "iou": iou(silhouettes(shown), truth),
        "ceiling": iou(silhouettes(full), truth),
        "psnr_to_full": psnr(luma(shown), luma(full)),
        "psnr_to_plain": psnr(luma(shown), luma(plain)),
    }
    return figures, Row(pictures=shown, caption=f"restyle at {strength:g}: {prompt}")


def summed_up(name: str, figures: list[dict[str, float]], **more: float) -> None:
    """One line: medians, and the worst seam."""
    summary = {key: round(median(f[key] for f in figures), 3) for key in figures[0]}
    if "seam" in summary:
        summary["seam_max"] = round(max(f["seam"] for f in figures), 3)
    print(json.dumps({"case": name, "clips": len(figures), **more, **summary}), flush=True)


def main() -> None:
    """Run all three."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.given", description="Measure what is given.")
    parser.add_argument("--model", default="tiny-world")
    parser.add_argument("--recipe", default="tiny-world")
    parser.add_argument("--num", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("out/given"))
    options = parser.parse_args()
    world = load_recipe(options.recipe).world
    with longtake.open(options.model) as studio:
        num_frames = studio.clock.opening_frames + 3 * studio.clock.chunk_frames
        scenes = held_out_scenes(world, num_frames)
        chosen = [next(scenes) for _ in range(options.num)]
        for name, verb in (("animate", animated), ("extend", extended)):
            figures, rows = zip(*(verb(studio, *scene) for scene in chosen), strict=True)
            summed_up(name, list(figures))
            save_sheet(contact_sheet(rows, columns=8), options.out / f"{name}.png")
        rows = []
        for strength in STRENGTHS:
            measured = [restyled(studio, *scene, strength) for scene in chosen]
            summed_up("restyle", [figures for figures, _ in measured], strength=strength)
            rows += [row for _, row in measured[:3]]
        save_sheet(contact_sheet(rows, columns=8), options.out / "restyle.png")
    print(options.out)


if __name__ == "__main__":
    main()

"""Sheets to judge a model by eye: subjects and places it never saw together, and a take whose prompt changes.

python -m benchmarks.held_out RECIPE OUT.png [--model M] [--num 16] [--teacher]
"""

import argparse
from pathlib import Path

import torch

from longtake.core.shapes import Pictures
from longtake.media.sheets import Row, contact_sheet
from longtake.sample.cues import cues_from
from longtake.sample.model import Model, open_model
from longtake.studio.generate import generate
from longtake.train.run import load_recipe
from longtake.worlds.captions import captions_for
from longtake.worlds.sampling import sample_scene
from longtake.worlds.scenes import WorldConfig

SWITCHES = (
    "a tiger walks through a forest, then snow starts to fall",
    "a red car drives on a city street, then night falls",
)


def held_out_prompts(world: WorldConfig, num: int) -> list[str]:
    """Captions of scenes whose pair of subject and place, or of subject and motion, training never showed."""
    prompts: list[str] = []
    seed = 0
    while len(prompts) < num:
        scene = sample_scene(world, seed, split="held_out")
        text = captions_for(scene, seed)[0]
        if not scene.events and text not in prompts:
            prompts.append(text)
        seed += 1
    return prompts


def take(model: Model, prompt: str, seconds: float, seed: int) -> Pictures:
    """All pictures of a take."""
    chunks = generate(model, cues_from(prompt, [], seconds), seconds=seconds, seed=seed)
    return torch.cat([chunk.frames for chunk in chunks])


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.held_out", description="Write a sheet of held-out prompts."
    )
    parser.add_argument("recipe")
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="tiny-world")
    parser.add_argument("--num", type=int, default=16)
    parser.add_argument("--teacher", action="store_true")
    options = parser.parse_args()
    model = open_model(options.model, teacher=options.teacher)
    clip_s = model.preset.codec.stride.frames(model.preset.clip_latent_frames) / model.fps
    rows = [
        Row(pictures=take(model, prompt, clip_s, seed), caption=prompt, label=str(seed + 1))
        for seed, prompt in enumerate(held_out_prompts(load_recipe(options.recipe).world, options.num))
    ]
    if not options.teacher:
        rows += [
            Row(pictures=take(model, prompt, 6.0, seed), caption=prompt, label="switch")
            for seed, prompt in enumerate(SWITCHES)
        ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(rows, columns=7).save(options.out)
    print(options.out)


if __name__ == "__main__":
    main()

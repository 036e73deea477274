"""Rendering of clips of the world, several at a time."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from longtake.core.tasks import Tasks
from longtake.worlds.render import render, silhouettes
from longtake.worlds.sampling import sample_scene
from longtake.worlds.scenes import Scene, WorldConfig

BATCH = 10  # clips per task: 20 MB of pictures at 160x96
Draw = Callable[[Sequence[Scene]], Tensor]  # scenes -> uint8 [b, frames, height, width, channels]


def rendered(
    world: WorldConfig, seeds: Sequence[int], tasks: Tasks, draw: Draw = render
) -> Iterator[tuple[list[Scene], UInt8[Tensor, "b frames height width _c"]]]:
    """Yield scenes and their pictures in the order of `seeds`, `BATCH` at a time.

    Args:
        world: configuration of the scenes.
        seeds: one seed per clip.
        tasks: where the clips are rendered; the pictures do not depend on it.
        draw: function that renders a few scenes; other processes must be able to import it by name.
    """
    groups = [seeds[i : i + BATCH] for i in range(0, len(seeds), BATCH)]
    for group, pictures in zip(groups, tasks.map(_draw, (world, draw), groups, whole=False), strict=True):
        yield _scenes(world, group), torch.from_numpy(pictures)


def drawn_with_cover(scene: Scene, frames: range) -> UInt8[Tensor, "b frames height width rgba"]:
    """Some frames of a scene; alpha is the share of a pixel that its subjects cover."""
    return torch.cat((render([scene], frames=frames), silhouettes([scene], frames=frames)[..., None]), -1)


def _scenes(world: WorldConfig, seeds: Sequence[int]) -> list[Scene]:
    return [sample_scene(world, seed) for seed in seeds]


def _draw(shared: tuple[WorldConfig, Draw], seeds: Sequence[int]) -> np.ndarray:
    world, draw = shared
    return draw(_scenes(world, seeds)).numpy()

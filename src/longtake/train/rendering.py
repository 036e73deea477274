"""Rendering of clips of the world, in parallel on the machine's cores."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from longtake.worlds.render import render, silhouettes
from longtake.worlds.sampling import sample_scene
from longtake.worlds.scenes import Scene, WorldConfig

BATCH = 10  # clips per task: 20 MB of pictures at 160x96
Draw = Callable[[Sequence[Scene]], Tensor]  # scenes -> uint8 [b, frames, height, width, channels]


def rendered(
    world: WorldConfig, seeds: Sequence[int], workers: int, draw: Draw = render
) -> Iterator[tuple[list[Scene], UInt8[Tensor, "b frames height width _c"]]]:
    """Yield scenes and their pictures in the order of `seeds`, `BATCH` at a time.

    Args:
        world: configuration of the scenes.
        seeds: one seed per clip.
        workers: number of processes; 1 renders in this one. The pictures do not depend on it.
        draw: function that renders a few scenes; other processes must be able to import it by name.
    """
    groups = [seeds[i : i + BATCH] for i in range(0, len(seeds), BATCH)]
    if workers == 1:
        for group in groups:
            yield _scenes(world, group), torch.from_numpy(_draw(world, group, draw))
        return
    # "spawn": a forked child would inherit torch's threads in the middle of their work.
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting = iter(groups)
        # The number of tasks in flight is bounded: pictures are large, and the codec may be slower than the rendering.
        running: deque[tuple[Sequence[int], Future[np.ndarray]]] = deque(
            (group, pool.submit(_draw, world, group, draw)) for group in islice(waiting, 2 * workers)
        )
        while running:
            group, pictures = running.popleft()
            yield _scenes(world, group), torch.from_numpy(pictures.result())
            for following in islice(waiting, 1):
                running.append((following, pool.submit(_draw, world, following, draw)))


def drawn_with_cover(scene: Scene, frames: range) -> UInt8[Tensor, "b frames height width rgba"]:
    """Some frames of a scene; alpha is the share of a pixel that its subjects cover."""
    return torch.cat((render([scene], frames=frames), silhouettes([scene], frames=frames)[..., None]), -1)


def _scenes(world: WorldConfig, seeds: Sequence[int]) -> list[Scene]:
    return [sample_scene(world, seed) for seed in seeds]


def _draw(world: WorldConfig, seeds: Sequence[int], draw: Draw) -> np.ndarray:
    return draw(_scenes(world, seeds)).numpy()

"""Clips of the world as fast as the machine's cores can draw them."""

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
from longtake.worlds.scenes import Scene, WorldConfig, sample_scene

BATCH = 10  # clips a piece of work: 20 MB of pictures at 160x96
Draw = Callable[[Sequence[Scene]], Tensor]  # scenes -> uint8 [b, frames, height, width, channels]


def rendered(
    world: WorldConfig, seeds: Sequence[int], workers: int, draw: Draw = render
) -> Iterator[tuple[list[Scene], UInt8[Tensor, "b frames height width _c"]]]:
    """Scenes and their pictures, in the order of `seeds`, BATCH at a time.

    Args:
        world: what can happen.
        seeds: one a clip.
        workers: processes; 1 draws in this one. The pictures are the same.
        draw: how a few scenes are drawn; a function that other processes can find by its name.
    """
    groups = [seeds[i : i + BATCH] for i in range(0, len(seeds), BATCH)]
    if workers == 1:
        for group in groups:
            yield _scenes(world, group), torch.from_numpy(_draw(world, group, draw))
        return
    # "spawn": a forked child would inherit torch's threads in the middle of their work.
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting = iter(groups)
        # A bounded number in flight: pictures are large, and the codec may be slower than the cores.
        running: deque[tuple[Sequence[int], Future[np.ndarray]]] = deque(
            (group, pool.submit(_draw, world, group, draw)) for group in islice(waiting, 2 * workers)
        )
        while running:
            group, pictures = running.popleft()
            yield _scenes(world, group), torch.from_numpy(pictures.result())
            for following in islice(waiting, 1):
                running.append((following, pool.submit(_draw, world, following, draw)))


def drawn_with_cover(scene: Scene, frames: range) -> UInt8[Tensor, "b frames height width rgba"]:
    """Some frames of a scene; alpha says how much of a pixel its subjects cover."""
    return torch.cat((render([scene], frames=frames), silhouettes([scene], frames=frames)[..., None]), -1)


def _scenes(world: WorldConfig, seeds: Sequence[int]) -> list[Scene]:
    return [sample_scene(world, seed) for seed in seeds]


def _draw(world: WorldConfig, seeds: Sequence[int], draw: Draw) -> np.ndarray:
    return draw(_scenes(world, seeds)).numpy()

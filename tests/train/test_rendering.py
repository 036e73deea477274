"""Clips drawn by several processes are those drawn by one."""

import pytest
import torch

from longtake.core.tasks import LocalTasks
from longtake.train.rendering import BATCH, rendered
from longtake.worlds.scenes import WorldConfig

CPU = torch.device("cpu")


@pytest.mark.slow
def test_processes_change_nothing_but_the_time() -> None:
    world, seeds = WorldConfig.small(), range(BATCH + 2)
    alone = list(rendered(world, seeds, LocalTasks(CPU, 1)))
    together = list(rendered(world, seeds, LocalTasks(CPU, 2)))
    assert [len(scenes) for scenes, _ in together] == [BATCH, 2]
    for (scenes, pictures), (same_scenes, same_pictures) in zip(alone, together, strict=True):
        assert scenes == same_scenes
        assert torch.equal(pictures, same_pictures)

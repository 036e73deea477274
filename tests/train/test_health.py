"""A sick run is stopped, with the reason; a healthy one, or one that stumbles, is not."""

import pytest
import torch

from longtake.core.errors import TrainingError
from longtake.train.dmd import bounds
from longtake.train.health import PATIENCE, Bound, Health

DATA = torch.randn(8, 4, 9, 6, 8, generator=torch.Generator().manual_seed(0))
WELL = {"student/std": 1.0, "student/motion": 1.0, "student/gradient": 0.8, "critic/loss": 1e9}


def test_a_healthy_run_goes_on() -> None:
    health = Health(bounds(DATA))
    for step in range(20):
        health.check(step, WELL)


@pytest.mark.parametrize(
    ("metric", "value", "why"),
    [
        ("student/std", 0.2, "contrast collapses"),
        ("student/std", 2.5, "pictures burn out"),
        ("student/motion", 0.05, "still pictures"),
        ("student/gradient", 9.0, "does not follow"),
    ],
)
def test_a_sick_run_is_stopped_and_told_why(metric: str, value: float, why: str) -> None:
    health = Health(bounds(DATA))
    for step in range(PATIENCE - 1):
        health.check(step, {**WELL, metric: value})
    with pytest.raises(TrainingError, match=why):
        health.check(PATIENCE, {**WELL, metric: value})


def test_one_bad_report_is_chance() -> None:
    health = Health([Bound(metric="x", low=1.0)])
    for step in range(9):
        health.check(step, {"x": 0.0 if step % PATIENCE else 2.0})
    health.check(9, {})

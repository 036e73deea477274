"""Metrics of clips: what they are for clips of which it is known."""

import pytest
import torch

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


def plain(*values: int, frames: int = 1) -> torch.Tensor:
    """Frames of one colour each, `frames` of every value."""
    clip = torch.tensor(values, dtype=torch.uint8).repeat_interleave(frames)
    return clip[:, None, None, None].expand(-1, 32, 48, 3).clone()


def moving(speed: int, frames: int = 9) -> torch.Tensor:
    """A textured square that goes right by `speed` pixels a frame, on black."""
    torch.manual_seed(0)
    square = torch.randint(60, 256, (16, 16, 3), dtype=torch.uint8)
    clip = torch.zeros(frames, 48, 96, 3, dtype=torch.uint8)
    for f in range(frames):
        clip[f, 16:32, 8 + speed * f : 24 + speed * f] = square
    return clip


def test_a_still_clip_is_steady() -> None:
    still = plain(77, 77, 77)
    assert flicker(still) == smoothness(still) == 1
    assert dynamics(still) == sharpness(still) == contrast(still) == saturation(still) == 0
    assert brightness(still) == pytest.approx(77 / 255)


def test_flicker_counts_differences_and_smoothness_departures_from_even_change() -> None:
    ramp, jump = plain(0, 51, 102), plain(0, 102, 0)
    assert flicker(ramp) == pytest.approx(1 - 0.2)
    assert smoothness(ramp) == pytest.approx(1)
    assert flicker(jump) == pytest.approx(1 - 0.4)
    assert smoothness(jump) == pytest.approx(1 - 0.4)


@pytest.mark.parametrize("speed", [0, 2, 5])
def test_dynamics_is_the_speed_of_what_moves_most(speed: int) -> None:
    assert dynamics(moving(speed)) == pytest.approx(speed, abs=0.5)


def test_colour_and_contrast() -> None:
    red = torch.zeros(2, 32, 48, 3, dtype=torch.uint8)
    red[..., 0] = 255
    assert saturation(red) == 1
    halves = plain(0, 0)
    halves[:, :16] = 255
    assert contrast(halves) == pytest.approx(0.5, abs=1e-3)
    assert sharpness(halves) > sharpness(plain(0, 255))


def test_the_sharpness_of_what_moves_sees_it_alone() -> None:
    """A blurred square is less sharp; a sharp pattern that stands still beside it changes nothing."""
    sharp = moving(3)
    blurred = torch.nn.functional.avg_pool2d(sharp.permute(0, 3, 1, 2).float(), 5, 1, 2).byte().permute(0, 2, 3, 1)
    assert moving_sharpness(blurred) < 0.4 * moving_sharpness(sharp)
    beside = sharp.clone()
    beside[:, 40:44, ::2] = 255
    assert moving_sharpness(beside) == pytest.approx(moving_sharpness(sharp), rel=0.02)
    assert sharpness(beside) > 1.3 * sharpness(sharp)
    assert moving_sharpness(plain(5, 5, 5)) == 0

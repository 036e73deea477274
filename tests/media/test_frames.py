"""Pixels to pictures and back."""

import pytest
import torch

from longtake.core.errors import ShapeError
from longtake.media.frames import from_pictures, to_pictures


def test_every_byte_survives_the_round_trip() -> None:
    pictures = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(2, 16, 16, 3).contiguous()
    video = from_pictures(pictures)
    assert video.shape == (1, 3, 2, 16, 16)
    assert (video.min().item(), video.max().item()) == (-1.0, 1.0)
    assert torch.equal(to_pictures(video), pictures)


def test_rounds_to_the_nearest_and_clamps() -> None:
    levels = torch.tensor([-9.0, -1.0, (100.4 / 127.5) - 1, (100.6 / 127.5) - 1, 1.0, 9.0])
    video = levels.reshape(1, 1, 1, 1, 6).expand(1, 3, 1, 1, 6)
    assert to_pictures(video)[0, 0, :, 0].tolist() == [0, 0, 100, 101, 255, 255]


def test_half_precision_is_rounded_in_full_precision() -> None:
    video = torch.full((1, 3, 1, 2, 2), 0.984375, dtype=torch.bfloat16)
    assert to_pictures(video).unique().tolist() == [253]


def test_a_batch_is_refused() -> None:
    with pytest.raises(ShapeError, match="batch of 2"):
        to_pictures(torch.zeros(2, 3, 1, 2, 2))

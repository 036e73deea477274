"""Distortion of decoded videos against the originals, as pure functions of pixels in [-1, 1]."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from longtake.core.shapes import Video

MOVING = 0.3  # deviation from the clip's median above which a pixel counts as moving; pixels are in [-1, 1]
LEVELS = 127.5  # grey levels, of 255, per unit of pixels in [-1, 1]


def psnr(mean_square: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of a mean squared error of pixels in [-1, 1]."""
    return 10 * torch.log10(4 / mean_square)


def moving_pixels(video: Video) -> Bool[Tensor, "b frames height width"]:
    """Mask of moving pixels: those that differ from the median over their clip by more than `MOVING`."""
    return (video - video.median(2, keepdim=True).values).abs().amax(1) > MOVING


def moving_psnr(decoded: Video, video: Video) -> float:
    """PSNR in dB over the moving pixels of `video`; NaN if nothing moves."""
    moving = moving_pixels(video)
    return float(psnr((decoded - video).square().mean(1)[moving].mean())) if bool(moving.any()) else math.nan


def change(video: Video) -> Float[Tensor, " b"]:
    """Mean absolute difference of successive frames, in grey levels of 255."""
    return LEVELS * video.diff(dim=2).abs().flatten(1).mean(1)


def excess_change(decoded: Video, video: Video) -> Float[Tensor, " b"]:
    """Increase of `change` over that of the original, in grey levels; for a still video this is flicker."""
    return change(decoded) - change(video)

"""How far decoded videos are from true ones: pure functions of pixels in [-1, 1]."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from longtake.core.shapes import Video

MOVING = 0.3  # of [-1, 1]: a pixel that differs by more from the median over its clip shows something that moves
LEVELS = 127.5  # of 255, in one unit of pixels in [-1, 1]


def psnr(mean_square: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of a mean squared error."""
    return 10 * torch.log10(4 / mean_square)


def moving_pixels(video: Video) -> Bool[Tensor, "b frames height width"]:
    """Where something moves: pixels that differ much from the median over their clip."""
    return (video - video.median(2, keepdim=True).values).abs().amax(1) > MOVING


def moving_psnr(decoded: Video, video: Video) -> float:
    """PSNR in dB of the pixels that show something moving; NaN where nothing moves."""
    moving = moving_pixels(video)
    return float(psnr((decoded - video).square().mean(1)[moving].mean())) if bool(moving.any()) else math.nan


def change(video: Video) -> Float[Tensor, " b"]:
    """Mean absolute difference of successive frames, in grey levels of 255."""
    return LEVELS * video.diff(dim=2).abs().flatten(1).mean(1)


def excess_change(decoded: Video, video: Video) -> Float[Tensor, " b"]:
    """By how much successive frames differ more than the true ones do, in grey levels: flicker, where nothing moves."""
    return change(decoded) - change(video)

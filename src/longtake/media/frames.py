"""Conversion between the pixels of the networks and the pictures of files and screens.

Pixels are floats in [-1, 1], laid out `b c f h w`. Pictures are bytes in 0..255, laid out `f h w c`; no package below
this one uses them.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from longtake.core.errors import ShapeError
from longtake.core.shapes import Pictures, Video


def to_pictures(video: Video) -> Pictures:
    """Convert the pixels of one video to pictures on the CPU, rounded to bytes and clamped to 0..255.

    Raises:
        ShapeError: the batch does not hold exactly one video.
    """
    if video.shape[0] != 1:
        raise ShapeError(f"pictures are made of one video at a time, got a batch of {video.shape[0]}; index it first")
    # The conversion is in fp32, since bf16 cannot distinguish neighbouring byte values near white.
    levels = (video[0].float() + 1) * 127.5
    return rearrange(levels.round().clamp(0, 255).to(torch.uint8), "c f h w -> f h w c").contiguous().cpu()


def from_pictures(pictures: Pictures) -> Float[Tensor, "1 c f h w"]:
    """Convert pictures to the pixels of one video, fp32 in [-1, 1], on the same device."""
    return rearrange(pictures.float() / 127.5 - 1, "f h w c -> 1 c f h w").contiguous()

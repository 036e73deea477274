"""Enlargement of pictures by Lanczos resampling, one picture at a time."""

import av
import torch
from av.video.reformatter import Interpolation, VideoReformatter
from torch import Tensor

from longtake.core.errors import InputError
from longtake.core.shapes import Pictures, PictureSize

SCALES = (1, 2, 3, 4)


def scaled_size(size: PictureSize, scale: int) -> PictureSize:
    """Picture size multiplied by `scale`.

    Raises:
        InputError: `scale` is none of `SCALES`.
    """
    if scale not in SCALES:
        raise InputError(f"scale must be one of {', '.join(map(str, SCALES))}, got {scale}")
    return PictureSize(height=size.height * scale, width=size.width * scale)


class Enlarger:
    """Resampling of pictures of any size to one size."""

    def __init__(self, size: PictureSize) -> None:
        self._size = size
        self._reformatter = VideoReformatter()

    def __call__(self, picture: Tensor) -> Pictures:
        """Resample a picture (uint8, `h w c`, RGB) to the target size (`1 h w c`)."""
        frame = av.VideoFrame.from_ndarray(picture.cpu().contiguous().numpy(), format="rgb24")
        large = self._reformatter.reformat(
            frame, self._size.width, self._size.height, "rgb24", interpolation=Interpolation.LANCZOS
        )
        return torch.from_numpy(large.to_ndarray())[None]

"""Pictures made larger: Lanczos, one by one."""

import av
import torch
from av.video.reformatter import Interpolation, VideoReformatter
from torch import Tensor

from longtake.core.errors import InputError
from longtake.core.shapes import Pictures, PictureSize

SCALES = (1, 2, 3, 4)


def scaled_size(size: PictureSize, scale: int) -> PictureSize:
    """The size of pictures that are written `scale` times as large.

    Raises:
        InputError: `scale` is none of `SCALES`.
    """
    if scale not in SCALES:
        raise InputError(f"scale must be one of {', '.join(map(str, SCALES))}, got {scale}")
    return PictureSize(height=size.height * scale, width=size.width * scale)


class Enlarger:
    """Pictures of any size in, pictures of one size out."""

    def __init__(self, size: PictureSize) -> None:
        self._size = size
        self._reformatter = VideoReformatter()

    def __call__(self, picture: Tensor) -> Pictures:
        """A picture (uint8, `h w c`, RGB) as one of the wanted size (`1 h w c`)."""
        frame = av.VideoFrame.from_ndarray(picture.cpu().contiguous().numpy(), format="rgb24")
        large = self._reformatter.reformat(
            frame, self._size.width, self._size.height, "rgb24", interpolation=Interpolation.LANCZOS
        )
        return torch.from_numpy(large.to_ndarray())[None]

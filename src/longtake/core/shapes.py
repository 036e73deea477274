"""Tensor types, and conversions between frames, latent frames, chunks and seconds.

A *frame* is a picture. A *latent frame* is the codec's unit of time: the first latent frame of a video
holds 1 frame, each later one holds `stride.time` frames (4 for every codec here). A *chunk* is the
group of latent frames that is denoised together. Nothing here depends on a particular resolution.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Float, UInt8
from torch import Tensor

from longtake.core.errors import InputError, ShapeError

# Axis names in all signatures: b batch, c channels, f latent frames, h w latent height and width, s tokens,
# t text tokens, e text width, g text groups, d model width, n heads, k head width, m cached tokens;
# frames, height, width and rgb are the axes of pixels and pictures.
Latent = Float[Tensor, "b c f h w"]  # normalised: about zero mean, unit variance
Video = Float[Tensor, "b rgb frames height width"]  # pixels in [-1, 1]
Tokens = Float[Tensor, "b s d"]
TextStates = Float[Tensor, "b _g t e"]  # one text per group of latent frames; g = 1: one for all
Sigma = Float[Tensor, "b #f"]  # noise level of every latent frame, in [0, 1]; f = 1: one for all
Pictures = UInt8[Tensor, "frames height width rgb"]  # 0..255


@dataclass(frozen=True, kw_only=True, slots=True)
class Stride:
    """Downsampling factors of a codec in time and space."""

    time: int = 4
    space: int = 8

    def frames(self, latent_frames: int) -> int:
        """Number of frames in the first `latent_frames` latent frames of a video: 1, then `time` for each later one."""
        return 0 if latent_frames == 0 else 1 + (latent_frames - 1) * self.time

    def latent_frames(self, frames: int) -> int:
        """Number of latent frames of a video of `frames` frames.

        Raises:
            ShapeError: `frames` is not 1 more than a multiple of `time`.
        """
        if frames < 1 or (frames - 1) % self.time:
            raise ShapeError(
                f"a video has 1 + {self.time} n frames (1, {1 + self.time}, {1 + 2 * self.time}, ...), "
                f"got {frames}; cut or extend it"
            )
        return 1 + (frames - 1) // self.time


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Half-open range of latent frames that one chunk of a take covers."""

    idx: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def frames(self, stride: Stride) -> range:
        """Range of the frames that this chunk decodes to, counted from the start of the take."""
        return range(stride.frames(self.start), stride.frames(self.stop))


def chunk_spans(chunk: int, start_idx: int = 0) -> Iterator[Span]:
    """Yield the spans of chunks of `chunk` latent frames without end, beginning with chunk `start_idx`."""
    idx = start_idx
    while True:
        yield Span(idx=idx, start=idx * chunk, stop=(idx + 1) * chunk)
        idx += 1


def chunks_for(seconds: float, *, fps: float, chunk: int, stride: Stride) -> int:
    """Smallest number of chunks that last at least `seconds`.

    Raises:
        InputError: `seconds` is not a positive finite number.
    """
    if not 0 < seconds < float("inf"):
        raise InputError(f"seconds must be a positive number, got {seconds}")
    frames = math.ceil(seconds * fps - 1e-6)
    latent_frames = 1 + math.ceil((frames - 1) / stride.time)
    return max(1, math.ceil(latent_frames / chunk))


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureSize:
    """Height and width of a picture, in pixels."""

    height: int
    width: int

    def latent(self, stride: Stride, patch: int) -> tuple[int, int]:
        """Latent height and width.

        Raises:
            InputError: a side is not a positive multiple of `stride.space * patch`.
        """
        unit = stride.space * patch
        for name, side in (("height", self.height), ("width", self.width)):
            if side <= 0 or side % unit:
                near = max(unit, round(side / unit) * unit)
                raise InputError(
                    f"{name} must be a positive multiple of {unit} pixels, got {side}; the nearest is {near}"
                )
        return self.height // stride.space, self.width // stride.space

    @classmethod
    def parse(cls, text: str) -> "PictureSize":
        """Parse a size such as "160x96" (width x height).

        Raises:
            InputError: the text is not two numbers with an x between them.
        """
        width, sep, height = text.lower().partition("x")
        if not (sep and width.isdecimal() and height.isdecimal()):
            raise InputError(f'a size reads WIDTHxHEIGHT, for example 160x96; got "{text}"')
        return cls(height=int(height), width=int(width))

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

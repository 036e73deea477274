"""Reading of picture and video files, with limits so that untrusted files cannot exhaust memory."""

import math
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Literal

import av
import numpy as np
import torch
from av.error import FFmpegError
from PIL import Image, ImageOps

from longtake.core.errors import MediaError
from longtake.core.shapes import Pictures, PictureSize
from longtake.media.targets import reason

MAX_PICTURE_PIXELS = 4096 * 4096
MAX_VIDEO_BYTES = 2 * 1024**3  # bytes of decoded pictures per video

Fit = Literal["crop", "fit"]


def read_image(path: Path, size: PictureSize, fit: Fit = "crop") -> Pictures:
    """Read a picture as RGB, rotated upright, with transparent parts over black.

    Args:
        path: any picture file that Pillow reads.
        size: size of the result.
        fit: "crop" fills the size and cuts off the rest; "fit" shows the whole picture between black bars.

    Raises:
        MediaError: the file is missing, damaged, no picture, or has more than `MAX_PICTURE_PIXELS` pixels.
    """
    _check_file(path)
    try:
        with Image.open(path) as opened:
            _check_pixels(path, opened.width, opened.height)
            upright = ImageOps.exif_transpose(opened).convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise MediaError(f"cannot read {path} as a picture: {reason(error)}") from error
    picture = Image.new("RGB", upright.size)
    picture.paste(upright, mask=upright.getchannel("A"))
    return torch.from_numpy(np.array(_resized(picture, size, fit)))[None]


def read_video(
    path: Path,
    size: PictureSize | None = None,
    fps: float | None = None,
    max_seconds: float = 60.0,
    fit: Fit = "crop",
) -> Pictures:
    """Read all pictures of a video file.

    Args:
        path: any video file that FFmpeg reads.
        size: size of the result; None: the file's.
        fps: frame rate of the result, which holds the picture on screen at each tick; None: every picture of the file.
        max_seconds: longest accepted duration; a longer file raises an error.
        fit: as in `read_image`.

    Raises:
        MediaError: the file is missing, damaged, holds no video, is longer than `max_seconds`, or would decode to more
            than `MAX_PICTURE_PIXELS` pixels per picture or `MAX_VIDEO_BYTES` in all.
    """
    if fps is not None and not 0 < fps <= 1000:
        raise MediaError(f"fps must lie above 0 and at most 1000, got {fps}")
    _check_file(path)
    pictures: list[np.ndarray] = []
    num_bytes = 0
    try:
        for picture, repeats in _ticks(path, fps, max_seconds):
            image = np.array(_resized(Image.fromarray(picture), size, fit)) if size else picture
            num_bytes += image.nbytes * repeats
            if num_bytes > MAX_VIDEO_BYTES:
                raise MediaError(
                    f"{path} decodes to more than {MAX_VIDEO_BYTES >> 30} GiB of pictures; make size or fps smaller"
                )
            pictures.extend([image] * repeats)
    except FFmpegError as error:
        raise MediaError(f"cannot read {path} as a video: {reason(error)}") from error
    if not pictures:
        raise MediaError(f"cannot read {path} as a video: it holds no pictures")
    return torch.from_numpy(np.stack(pictures))


def stream_video(
    path: Path, size: PictureSize, fps: float, fit: Fit = "crop", until_s: float = math.inf
) -> Iterator[Pictures]:
    """Yield the pictures of a video file one by one, [1, height, width, rgb], decoding lazily.

    Args:
        path: any video file that FFmpeg reads, of any length.
        size: size of the pictures.
        fps: frame rate of the result, which holds the picture on screen at each tick.
        fit: as in `read_image`.
        until_s: `time.monotonic()` after which no more frames are decoded, those included that are never shown.

    Raises:
        MediaError: at the call, the file is missing or holds no video; while pictures are read, it is damaged, or
            `until_s` has passed.
    """
    _check_file(path)
    try:
        first = next(ticks := _ticks(path, fps, math.inf, until_s), None)
    except FFmpegError as error:
        raise MediaError(f"cannot read {path} as a video: {reason(error)}") from error
    if first is None:
        raise MediaError(f"cannot read {path} as a video: it holds no pictures")
    return _sized(path, chain((first,), ticks), size, fit)


def _sized(path: Path, ticks: Iterator[tuple[np.ndarray, int]], size: PictureSize, fit: Fit) -> Iterator[Pictures]:
    try:
        for picture, repeats in ticks:
            sized = torch.from_numpy(np.array(_resized(Image.fromarray(picture), size, fit)))[None]
            for _ in range(repeats):
                yield sized
    except FFmpegError as error:
        raise MediaError(f"cannot read {path} as a video: {reason(error)}") from error


def _ticks(
    path: Path, fps: float | None, max_seconds: float, until_s: float = math.inf
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield decoded pictures, each with the number of ticks of the result it is on screen for (1 without `fps`)."""
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise MediaError(f"cannot read {path} as a video: it holds no video stream")
        stream = container.streams.video[0]
        _check_pixels(path, stream.codec_context.width, stream.codec_context.height)
        stream.thread_type = "AUTO"
        start_s: float | None = None
        shown: np.ndarray | None = None
        shown_s = step_s = 0.0
        num_ticks = 0
        for frame in container.decode(stream):
            if time.monotonic() > until_s:
                raise MediaError(f"{path.name} takes too long to decode; make it smaller first")
            start_s = frame.time if start_s is None else start_s
            now_s = (frame.time or 0.0) - (start_s or 0.0)
            if now_s >= max_seconds:
                raise MediaError(f"{path} is longer than {max_seconds:g} s; cut it first")
            _check_pixels(path, frame.width, frame.height)
            if shown is not None:
                repeats = 1 if fps is None else max(0, math.ceil(now_s * fps - 1e-6) - num_ticks)
                if repeats:
                    yield shown, repeats
                num_ticks += repeats
                step_s = now_s - shown_s
            shown, shown_s = frame.to_ndarray(format="rgb24"), now_s
        if shown is not None:
            # The last picture gets the duration of the one before it.
            repeats = 1 if fps is None else round((shown_s + step_s) * fps) - num_ticks
            if repeats > 0 or num_ticks == 0:
                yield shown, max(1, repeats)


def _check_file(path: Path) -> None:
    if not path.exists():
        raise MediaError(f"{path} does not exist")
    if path.is_dir():
        raise MediaError(f"{path} is a folder, not a file")


def _check_pixels(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PICTURE_PIXELS:
        raise MediaError(f"{path} is {width}x{height}, more than {MAX_PICTURE_PIXELS:,} pixels; make it smaller first")


def _resized(picture: Image.Image, size: PictureSize, fit: Fit) -> Image.Image:
    box = (size.width, size.height)
    if picture.size == box:
        return picture
    if fit == "crop":
        return ImageOps.fit(picture, box, Image.Resampling.LANCZOS)
    return ImageOps.pad(picture, box, Image.Resampling.LANCZOS)

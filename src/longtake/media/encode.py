"""Encoding of pictures to an H.264 mp4 while they are being made.

The file grows as a fragmented mp4, one fragment per frame, which plays even if the process is killed. At the end its
packets are copied, without encoding again, into an ordinary mp4 with its index in front, and that file is renamed
atomically to the final path.
"""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from torch import Tensor

from longtake.core.errors import MediaError
from longtake.core.shapes import PictureSize
from longtake.media.targets import Target, reason

SECONDS_PER_KEYFRAME = 2.0
BT709 = 1  # code of BT.709 in H.273, for primaries, transfer and matrix alike
LIMITED_RANGE = 1  # code of luma in 16..235, which every player assumes

T = TypeVar("T")


class Mp4Writer:
    """Writer of an H.264 mp4 that can be watched while it is written (yuv420p, BT.709, limited range).

    As a context manager, the writer closes on normal exit and aborts on an exception. After a failed write, for
    example on a full disk, the growing file is kept, so that the frames so far are not lost.

    Raises:
        MediaError: the size is odd or empty, the fps is not positive, or the path cannot be written.
    """

    def __init__(self, path: Path, *, fps: float, size: PictureSize, crf: int = 18) -> None:
        check_even(size)
        if not 0 < fps <= 1000:
            raise MediaError(f"fps must lie above 0 and at most 1000, got {fps}")
        self.size = size
        self.rate = Fraction(fps).limit_denominator(1001)
        self.frames_written = 0
        self._target = Target(path)
        self._target.prepare()
        self._container = av.open(
            str(self.growing_path),
            "w",
            format="mp4",
            options={"movflags": "frag_keyframe+frag_every_frame+empty_moov+default_base_moof", "flush_packets": "1"},
        )
        self._stream = self._container.add_stream(
            "libx264", rate=self.rate, options={"preset": "veryfast", "tune": "zerolatency", "crf": str(crf)}
        )
        self._stream.width, self._stream.height = size.width, size.height
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = 1 / self.rate
        context = self._stream.codec_context
        context.gop_size = max(1, round(SECONDS_PER_KEYFRAME * self.rate))
        flag_colours(context)
        self._yuv = ToYuv()
        self._open = True

    @property
    def path(self) -> Path:
        """Final path of the file."""
        return self._target.path

    @property
    def growing_path(self) -> Path:
        """Path of the growing file, which holds every frame pushed so far (the last one possibly a push later)."""
        return self._target.growing_path

    @property
    def bytes_written(self) -> int:
        """Size of the growing file, or of the finished one once closed."""
        path = self.growing_path if self._open else self.path
        return path.stat().st_size if path.exists() else 0

    def push(self, pictures: Tensor) -> None:
        """Encode pictures (uint8, `f h w c`, RGB) and write their packets at once.

        Raises:
            MediaError: the pictures have another size or type, the writer is closed, or the disk is full.
        """
        if not self._open:
            raise MediaError(f"{self.path} is closed; open a new writer")
        check_pictures(pictures, self.size)
        for picture in pictures.cpu().numpy():
            frame = self._yuv(picture)
            frame.pts, frame.time_base = self.frames_written, 1 / self.rate
            packets = self._stream.encode(frame)
            self._guard(lambda packets=packets: self._container.mux(packets))
            self.frames_written += 1

    def close(self) -> None:
        """Finish the file and rename it to its final path; a second call does nothing.

        Raises:
            MediaError: nothing was pushed, or the disk is full.
        """
        if not self._open:
            return
        if self.frames_written == 0:
            self.abort()
            raise MediaError(f"no frames were made, so {self.path} was not written")
        self._guard(lambda: self._container.mux(self._stream.encode(None)))
        self._open = False
        self._guard(self._container.close)
        self._guard(self._seal)
        self._target.commit(self._target.sealing_path)
        self._target.discard()

    def abort(self) -> None:
        """Remove all unfinished files; an earlier file at the final path is untouched."""
        if self._open:
            self._stop()
            self._target.discard()

    def __enter__(self) -> "Mp4Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _seal(self) -> None:
        """Copy the packets of the growing file into an mp4 with its index in front."""
        with (
            av.open(str(self.growing_path)) as grown,
            av.open(str(self._target.sealing_path), "w", format="mp4", options={"movflags": "faststart"}) as sealed,
        ):
            source = grown.streams.video[0]
            stream = sealed.add_stream_from_template(source)
            for packet in grown.demux(source):
                if packet.dts is not None:
                    packet.stream = stream
                    sealed.mux(packet)

    def _guard(self, write: Callable[[], T]) -> T:
        """Run a disk operation; if it fails, keep the growing file and raise a MediaError that names it."""
        try:
            return write()
        except (OSError, FFmpegError) as error:
            self._stop()
            self._target.sealing_path.unlink(missing_ok=True)
            raise MediaError(
                f"cannot write {self.path}: {reason(error)}; the frames so far can be watched in {self.growing_path}"
            ) from error

    def _stop(self) -> None:
        """Close the file, even if its trailer cannot be written."""
        self._open = False
        try:
            self._container.close()
        except (OSError, FFmpegError):
            # A disk that is too full for the frames is too full for the trailer; the fragments play without it.
            return


class ToYuv:
    """Conversion of RGB pictures to the encoder's format: yuv420p, BT.709, limited range."""

    def __init__(self) -> None:
        self._converter = VideoReformatter()  # kept, since creating its tables costs more than converting a frame

    def __call__(self, picture: np.ndarray) -> av.VideoFrame:
        return self._converter.reformat(
            av.VideoFrame.from_ndarray(picture, format="rgb24"),
            format="yuv420p",
            src_colorspace=Colorspace.ITU709,
            dst_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
        )


def flag_colours(context: av.VideoCodecContext) -> None:
    """Set an encoder's colour flags to the format of `ToYuv`; without them, players guess differently."""
    context.color_primaries = context.color_trc = context.colorspace = BT709
    context.color_range = LIMITED_RANGE


def check_even(size: PictureSize) -> None:
    """Check that a size is possible in yuv420p.

    Raises:
        MediaError: a side is odd or empty.
    """
    if size.width < 2 or size.height < 2 or size.width % 2 or size.height % 2:
        raise MediaError(f"H.264 needs an even width and height, got {size}")


def check_pictures(pictures: Tensor, size: PictureSize) -> None:
    """Check that pictures are uint8 `f h w c` of a size.

    Raises:
        MediaError: they have another type, layout or size.
    """
    expected = (size.height, size.width, 3)
    if str(pictures.dtype) != "torch.uint8" or pictures.ndim != 4 or tuple(pictures.shape[1:]) != expected:
        raise MediaError(
            f"expected pictures (frames, {size.height}, {size.width}, 3) of torch.uint8, "
            f"got {tuple(pictures.shape)} of {pictures.dtype}"
        )

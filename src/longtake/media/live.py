"""H.264 encoding of single chunks, and conversion of encoded chunks to files without encoding again.

Every chunk begins with a key frame and its parameter sets (an IDR access unit, Annex B), so it can be decoded by
itself, and any path through a tree of chunks is encoded as the concatenation of its chunks.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from PIL import Image
from torch import Tensor

from longtake.core.errors import MediaError
from longtake.core.shapes import Pictures, PictureSize
from longtake.media.encode import ToYuv, check_even, check_pictures, flag_colours
from longtake.media.targets import Target, reason

CRF = 20
JPEG_QUALITY = 88
SPS = 7  # type of the network abstraction layer unit that holds a sequence parameter set


class ChunkEncoder:
    """H.264 encoder of chunks that returns each frame as soon as it is encoded (yuv420p, BT.709)."""

    def __init__(self, size: PictureSize, fps: float) -> None:
        """Create an encoder of pictures of one size.

        Raises:
            MediaError: the size is odd or empty.
        """
        check_even(size)
        self.size = size
        self._rate = Fraction(fps).limit_denominator(1001)
        self._yuv = ToYuv()
        self._context = av.VideoCodecContext.create("libx264", "w")
        self._context.width, self._context.height, self._context.pix_fmt = size.width, size.height, "yuv420p"
        self._context.time_base, self._context.framerate = 1 / self._rate, self._rate
        self._context.thread_count = 1  # slice threads gain nothing at these sizes
        self._context.gop_size = 1_000_000  # no automatic key frames; `encode` sets them
        flag_colours(self._context)
        self._context.options = {"preset": "superfast", "tune": "zerolatency", "crf": str(CRF), "forced-idr": "1"}
        self._num_encoded = 0

    def encode(self, pictures: Pictures) -> Iterator[bytes]:
        """Yield the encoded frames of a chunk.

        Args:
            pictures: uint8 [frames, height, width, 3].

        Raises:
            MediaError: they have another size or type.
        """
        check_pictures(pictures, self.size)
        for k, picture in enumerate(pictures.cpu().numpy()):
            frame = self._yuv(picture)
            frame.pts, frame.time_base = self._num_encoded, 1 / self._rate
            frame.pict_type = PictureType.I if k == 0 else PictureType.NONE
            self._num_encoded += 1
            yield b"".join(bytes(packet) for packet in self._context.encode(frame))


def codec_name(key_frame: bytes) -> str:
    """WebCodecs name of the stream of a key frame: "avc1." and its profile, constraints and level.

    Raises:
        MediaError: the frame holds no parameter sets.
    """
    for unit in key_frame.split(b"\0\0\1")[1:]:
        if unit[0] & 31 == SPS:
            return f"avc1.{unit[1:4].hex()}"
    raise MediaError("no key frame: it carries no parameter sets")


def pictures_of(frames: Iterable[bytes]) -> Pictures:
    """Decode the frames of one or more chunks; the first must begin a chunk.

    Raises:
        MediaError: they cannot be decoded.
    """
    context = av.CodecContext.create("h264", "r")
    context.thread_count = 1
    converter = VideoReformatter()
    pictures = []
    try:
        for data in [*frames, None]:
            for frame in context.decode(None if data is None else av.Packet(data)):
                rgb = converter.reformat(
                    frame,
                    format="rgb24",
                    src_colorspace=Colorspace.ITU709,
                    dst_colorspace=Colorspace.ITU709,
                    src_color_range=ColorRange.MPEG,
                    dst_color_range=ColorRange.JPEG,
                )
                pictures.append(rgb.to_ndarray())
    except FFmpegError as error:
        raise MediaError(f"these are no frames of a chunk: {reason(error)}") from error
    if not pictures:
        raise MediaError("these are no frames of a chunk: nothing could be decoded")
    return torch.from_numpy(np.stack(pictures))


def jpeg_of(picture: Tensor) -> bytes:
    """Encode a picture, uint8 [height, width, 3], as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(picture.cpu().numpy()).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def jpegs_of(frames: Sequence[bytes]) -> list[bytes]:
    """Convert the frames of a chunk to JPEG files."""
    return [jpeg_of(picture) for picture in pictures_of(frames)]


def write_mp4(path: Path, chunks: Iterable[Sequence[bytes]], fps: float) -> Path:
    """Write chunks to an mp4 with its index in front, without encoding again.

    Raises:
        MediaError: there are no chunks, or the file cannot be written.
    """
    target = Target(path)
    target.prepare()
    try:
        with av.open(str(target.growing_path), "w", format="mp4", options={"movflags": "faststart"}) as container:
            for _ in _muxed(container, (frame for chunk in chunks for frame in chunk), fps):
                pass
    except (OSError, FFmpegError) as error:
        target.discard()
        raise MediaError(f"cannot write {path}: {reason(error)}") from error
    target.commit(target.growing_path)
    return path


def fragmented_mp4(frames: Iterable[bytes], fps: float) -> Iterator[bytes]:
    """Yield a fragmented mp4 piece by piece, each frame as soon as it arrives; the pieces so far can be played."""
    pipe = _Pipe()
    flags = "frag_keyframe+frag_every_frame+empty_moov+default_base_moof"
    with av.open(pipe, "w", format="mp4", options={"movflags": flags, "flush_packets": "1"}) as container:
        for _ in _muxed(container, frames, fps):
            yield from pipe.taken()
    yield from pipe.taken()


class _Pipe:
    """File object that collects what a muxer writes until it is taken."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def taken(self) -> list[bytes]:
        taken, self._pieces = self._pieces, []
        return taken


def _muxed(container: OutputContainer, frames: Iterable[bytes], fps: float) -> Iterator[None]:
    """Mux frames into a container one by one, yielding after each."""
    duration = 1 / Fraction(fps).limit_denominator(1001)
    stream = None
    for i, data in enumerate(frames):
        if stream is None:
            with av.open(io.BytesIO(data), format="h264") as template:
                stream = container.add_stream_from_template(template.streams.video[0])
            stream.time_base = duration
        packet = av.Packet(data)
        packet.stream, packet.time_base = stream, duration
        packet.pts = packet.dts = i
        packet.duration = 1
        packet.is_keyframe = _is_key(data)
        container.mux(packet)
        yield
    if stream is None:
        raise MediaError("there are no frames to write")


def _is_key(frame: bytes) -> bool:
    """Whether a frame begins with parameter sets, as every key frame here does."""
    start = frame.find(b"\0\0\1")
    return start >= 0 and frame[start + 3] & 31 == SPS

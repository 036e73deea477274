"""Chunks in H.264: whole by themselves, in any order, and never encoded twice."""

import io
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
import torch
from torch import Tensor

from longtake.core.errors import MediaError
from longtake.core.shapes import PictureSize
from longtake.media.live import ChunkEncoder, codec_name, fragmented_mp4, jpegs_of, pictures_of, write_mp4

SIZE = PictureSize(height=32, width=48)


def chunk_of(level: int, frames: int = 4) -> Tensor:
    """Frames of one grey each, a little brighter from one to the next."""
    levels = torch.arange(frames, dtype=torch.uint8) * 8 + level
    return levels[:, None, None, None].expand(-1, SIZE.height, SIZE.width, 3).contiguous()


def test_each_chunk_can_be_decoded_without_the_others() -> None:
    encoder = ChunkEncoder(SIZE, fps=16)
    chunks = [list(encoder.encode(chunk_of(level))) for level in (40, 120, 200)]
    for level, frames in zip((40, 120, 200), chunks, strict=True):
        assert len(frames) == 4
        assert (pictures_of(frames).float() - chunk_of(level).float()).abs().max() <= 3
    out_of_order = pictures_of([*chunks[2], *chunks[0]])
    assert abs(int(out_of_order[4].float().mean()) - 40) <= 3
    with pytest.raises(MediaError, match="no frames of a chunk"):
        pictures_of(chunks[1][1:2])  # a frame that needs the one before it


def test_colours_come_back() -> None:
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [250, 220, 30], [90, 60, 200]], dtype=torch.uint8)
    pictures = colours[:, None, None].expand(-1, SIZE.height, SIZE.width, -1).contiguous()
    back = pictures_of(ChunkEncoder(SIZE, fps=16).encode(pictures))
    assert (back.float() - pictures.float()).abs().mean((1, 2, 3)).max() < 4


def test_the_codec_has_the_name_that_browsers_ask_for() -> None:
    key, later = ChunkEncoder(SIZE, fps=16).encode(chunk_of(0, 2))
    name = codec_name(key)
    assert name.startswith("avc1.64")  # High profile
    assert len(name) == len("avc1.64000A")
    with pytest.raises(MediaError, match="no key frame"):
        codec_name(later)


def test_an_mp4_holds_the_very_frames_that_travelled(tmp_path: Path) -> None:
    encoder = ChunkEncoder(SIZE, fps=16)
    chunks = [list(encoder.encode(chunk_of(level, n))) for level, n in ((40, 9), (90, 12), (150, 12))]
    path = write_mp4(tmp_path / "path.mp4", [chunks[0], chunks[2]], fps=16)
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        shown = [frame.to_ndarray(format="gray").mean() for frame in file.decode(stream)]
        assert stream.average_rate == 16
        assert stream.duration is not None
        assert stream.time_base is not None
        assert float(stream.duration * stream.time_base) == pytest.approx(21 / 16)
    assert len(shown) == 21
    assert shown[9] > shown[8] + 20
    assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")
    with pytest.raises(MediaError, match="no frames"):
        write_mp4(tmp_path / "none.mp4", [], fps=16)
    assert not (tmp_path / "none.mp4").exists()


def test_a_growing_mp4_can_be_played_at_every_frame() -> None:
    frames = list(ChunkEncoder(SIZE, fps=16).encode(chunk_of(40, 6)))
    sent = bytearray()
    playable = []

    def watched() -> None:
        with av.open(io.BytesIO(bytes(sent)), "r") as file:
            playable.append(sum(1 for _ in file.decode(video=0)))

    def arriving() -> Iterator[bytes]:
        for frame in frames:
            yield frame
            watched()

    for piece in fragmented_mp4(arriving(), fps=16):
        sent += piece
    watched()
    assert playable[-1] == 6
    assert playable == sorted(playable)
    assert all(n >= i for i, n in enumerate(playable))  # at most one frame behind what was pushed


def test_every_frame_is_also_a_jpeg() -> None:
    frames = list(ChunkEncoder(SIZE, fps=16).encode(chunk_of(100, 3)))
    files = jpegs_of(frames)
    assert len(files) == 3
    assert all(file[:2] == b"\xff\xd8" for file in files)


def test_wrong_pictures_are_refused() -> None:
    with pytest.raises(MediaError, match="even width"):
        ChunkEncoder(PictureSize(height=31, width=48), fps=16)
    with pytest.raises(MediaError, match="expected pictures"):
        list(ChunkEncoder(SIZE, fps=16).encode(torch.zeros(2, 16, 16, 3, dtype=torch.uint8)))

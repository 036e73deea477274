"""What an mp4 promises: the frames that went in, at the right times, in the right colours; all of it or nothing."""

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.error import FFmpegError
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from longtake.core.errors import MediaError
from longtake.core.shapes import PictureSize
from longtake.media.encode import Mp4Writer

SIZE = PictureSize(height=48, width=80)


def coloured(*rgb: int, frames: int = 4, size: PictureSize = SIZE) -> Tensor:
    return torch.tensor(rgb, dtype=torch.uint8).expand(frames, size.height, size.width, 3).clone()


def decoded(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("fps", [16, 24, 29.97, 12.5])
def test_count_fps_duration_and_times_are_right(tmp_path: Path, fps: float) -> None:
    path = tmp_path / "take.mp4"
    with Mp4Writer(path, fps=fps, size=SIZE) as writer:
        for _ in range(5):
            writer.push(coloured(90, 120, 40, frames=7))
        assert writer.frames_written == 35
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate is not None
        assert float(stream.average_rate) == pytest.approx(fps, rel=1e-3)
        assert stream.frames == 35
        assert stream.duration is not None
        assert stream.time_base is not None
        assert float(stream.duration * stream.time_base) == pytest.approx(35 / fps, rel=1e-3)
        times = [frame.time for frame in container.decode(stream)]
    assert times == pytest.approx([idx / fps for idx in range(35)], abs=2e-3)
    assert times == sorted(set(times))


@pytest.mark.parametrize(
    "rgb", [(230, 40, 30), (20, 200, 60), (30, 60, 220), (128, 128, 128), (0, 0, 0), (255, 255, 255)]
)
def test_colours_survive_as_tagged_bt709_limited_range(tmp_path: Path, rgb: tuple[int, int, int]) -> None:
    path = tmp_path / "take.mp4"
    with Mp4Writer(path, fps=16, size=SIZE) as writer:
        writer.push(coloured(*rgb))
    frame = decoded(path)[-1]
    assert (frame.format.name, frame.colorspace, frame.color_range) == ("yuv420p", 1, 1)
    assert (frame.color_primaries, frame.color_trc) == (1, 1)
    mean = frame.to_ndarray(format="rgb24").reshape(-1, 3).mean(axis=0)
    assert np.abs(mean - np.array(rgb)).max() <= 3


def test_index_stands_in_front(tmp_path: Path) -> None:
    path = tmp_path / "take.mp4"
    with Mp4Writer(path, fps=16, size=SIZE) as writer:
        writer.push(coloured(1, 2, 3, frames=20))
    data = path.read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")
    assert b"moof" not in data


def test_growing_file_can_be_watched_before_it_is_closed(tmp_path: Path) -> None:
    with Mp4Writer(tmp_path / "take.mp4", fps=16, size=SIZE) as writer:
        seen = [0]
        for _ in range(4):
            writer.push(coloured(90, 120, 40, frames=12))
            seen.append(len(decoded(writer.growing_path)))
            assert writer.bytes_written == writer.growing_path.stat().st_size > 0
            # the muxer holds one frame back, to learn how long it lasts
            assert seen[-1] >= writer.frames_written - 1
        assert not writer.path.exists()
    assert names(tmp_path) == {"take.mp4"}
    assert writer.bytes_written == writer.path.stat().st_size


def test_a_killed_process_leaves_a_file_that_plays(tmp_path: Path) -> None:
    code = f"""
import os, torch
from pathlib import Path
from longtake.core.shapes import PictureSize
from longtake.media.encode import Mp4Writer
writer = Mp4Writer(Path({str(tmp_path / "take.mp4")!r}), fps=16, size=PictureSize(height=48, width=80))
writer.push(torch.zeros(24, 48, 80, 3, dtype=torch.uint8))
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert names(tmp_path) == {"take.part.mp4"}
    assert len(decoded(tmp_path / "take.part.mp4")) >= 23


def test_an_error_leaves_what_was_there_before(tmp_path: Path) -> None:
    path = tmp_path / "take.mp4"
    path.write_bytes(b"an older take")

    def fail_midway() -> None:
        with Mp4Writer(path, fps=16, size=SIZE) as writer:
            writer.push(coloured(1, 2, 3))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_midway()
    assert path.read_bytes() == b"an older take"
    assert names(tmp_path) == {"take.mp4"}


def test_abort_leaves_nothing_and_close_replaces(tmp_path: Path) -> None:
    path = tmp_path / "take.mp4"
    writer = Mp4Writer(path, fps=16, size=SIZE)
    writer.push(coloured(1, 2, 3))
    writer.abort()
    assert names(tmp_path) == set()
    path.write_bytes(b"an older take")
    with Mp4Writer(path, fps=16, size=SIZE) as writer:
        writer.push(coloured(1, 2, 3))
        assert path.read_bytes() == b"an older take"
    assert len(decoded(path)) == 4
    writer.close()
    with pytest.raises(MediaError, match="closed"):
        writer.push(coloured(1, 2, 3))


def test_a_take_without_frames_is_an_error_and_no_file(tmp_path: Path) -> None:
    writer = Mp4Writer(tmp_path / "take.mp4", fps=16, size=SIZE)
    with pytest.raises(MediaError, match="no frames"):
        writer.close()
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (torch.zeros(4, 48, 82, 3, dtype=torch.uint8), "48, 82"),
        (torch.zeros(4, 3, 48, 80, dtype=torch.uint8), "3, 48, 80"),
        (torch.zeros(48, 80, 3, dtype=torch.uint8), "got .48, 80, 3"),
        (torch.zeros(4, 48, 80, 3), "float32"),
    ],
)
def test_wrong_pictures_are_refused(tmp_path: Path, pictures: Tensor, message: str) -> None:
    writer = Mp4Writer(tmp_path / "take.mp4", fps=16, size=SIZE)
    with pytest.raises(MediaError, match=message):
        writer.push(pictures)
    writer.abort()


@pytest.mark.parametrize("size", [(47, 80), (48, 81), (0, 80), (48, -2)])
def test_odd_and_empty_sizes_are_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    with pytest.raises(MediaError, match="even"):
        Mp4Writer(tmp_path / "take.mp4", fps=16, size=PictureSize(height=size[0], width=size[1]))
    assert names(tmp_path) == set()


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_impossible_fps_is_refused(tmp_path: Path, fps: float) -> None:
    with pytest.raises(MediaError, match="fps"):
        Mp4Writer(tmp_path / "take.mp4", fps=fps, size=SIZE)


def test_paths_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    with pytest.raises(MediaError, match=r"not a directory|file exists"):
        Mp4Writer(tmp_path / "a file" / "take.mp4", fps=16, size=SIZE)
    with pytest.raises(MediaError, match="is a folder"):
        Mp4Writer(tmp_path, fps=16, size=SIZE)
    with pytest.raises(MediaError, match="cannot write"):
        Mp4Writer(Path("/proc/take.mp4"), fps=16, size=SIZE)


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files, which only POSIX can")
def test_a_full_disk_is_one_error_and_keeps_the_frames_so_far(tmp_path: Path) -> None:
    code = f"""
import resource, torch
from pathlib import Path
from longtake.core.errors import MediaError
from longtake.core.shapes import PictureSize
from longtake.media.encode import Mp4Writer
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
rng = torch.Generator().manual_seed(0)
try:
    with Mp4Writer(Path({str(tmp_path / "take.mp4")!r}), fps=16, size=PictureSize(height=48, width=80)) as writer:
        for _ in range(200):
            writer.push(torch.randint(0, 256, (4, 48, 80, 3), generator=rng, dtype=torch.uint8))
except MediaError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"cannot write {tmp_path / 'take.mp4'}: ")
    assert done.stdout.strip().endswith("take.part.mp4")
    assert names(tmp_path) == {"take.part.mp4"}
    with av.open(str(tmp_path / "take.part.mp4")) as container:
        count = 0
        try:
            for _ in container.decode(video=0):
                count += 1
        except FFmpegError:
            pass  # the last fragment is torn
    assert count >= 4


@settings(max_examples=8, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), frames=st.integers(1, 5))
def test_any_even_size_works(tmp_path_factory: pytest.TempPathFactory, height: int, width: int, frames: int) -> None:
    size = PictureSize(height=2 * height, width=2 * width)
    path = tmp_path_factory.mktemp("sizes") / "take.mp4"
    with Mp4Writer(path, fps=16, size=size) as writer:
        writer.push(coloured(10, 200, 30, frames=frames, size=size))
    shown = decoded(path)
    assert [(frame.height, frame.width) for frame in shown] == [(size.height, size.width)] * frames

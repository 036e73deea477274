"""GIF, WebP and contact sheets, and the choice by suffix."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from torch import Tensor

from longtake.core.errors import InputError, MediaError
from longtake.core.shapes import PictureSize
from longtake.media.animations import open_writer
from longtake.media.encode import Mp4Writer
from longtake.media.sheets import BACKGROUND, Row, contact_sheet
from tests.media.test_encode import decoded

SIZE = PictureSize(height=32, width=48)


def ramp(frames: int, size: PictureSize = SIZE) -> Tensor:
    """Frames that grow brighter, no two alike."""
    levels = torch.linspace(0, 250, frames).to(torch.uint8)
    return levels.reshape(-1, 1, 1, 1).expand(frames, size.height, size.width, 3).clone()


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".GIF"])
def test_animations_hold_every_frame_for_its_time(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"take{suffix}"
    with open_writer(path, fps=16, size=SIZE) as writer:
        writer.push(ramp(24)[:9])
        writer.push(ramp(24)[9:])
        assert writer.frames_written == 24
    with Image.open(path) as animation:
        durations = []
        for frame in ImageSequence.Iterator(animation):
            frame.load()
            durations.append(frame.info["duration"])
        assert animation.size == (48, 32)
    assert len(durations) == 24
    assert sum(durations) == pytest.approx(1500, abs=10)
    assert {file.name for file in tmp_path.iterdir()} == {path.name}


@pytest.mark.parametrize("frames", [1, 5, 16, 31, 32, 33, 100])
def test_a_png_is_a_contact_sheet_of_the_whole_take(tmp_path: Path, frames: int) -> None:
    path = tmp_path / "take.png"
    with open_writer(path, fps=16, size=SIZE) as writer:
        writer.push(ramp(frames))
    with Image.open(path) as sheet:
        assert sheet.width > 48 * min(4, frames)
        brightest = max(
            colour[0] for _, colour in sheet.convert("RGB").getcolors(1 << 20) or [] if isinstance(colour, tuple)
        )
    assert brightest >= (200 if frames > 1 else 0)


def test_mp4_is_written_while_it_grows(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "take.mp4", fps=16, size=SIZE)
    assert isinstance(writer, Mp4Writer)
    writer.abort()


@pytest.mark.parametrize("name", ["take", "take.avi", "take.mp4.txt", ".mp4"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(MediaError, match=r"\.mp4, \.gif, \.webp, \.png"):
        open_writer(tmp_path / name, fps=16, size=SIZE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_an_aborted_animation_leaves_what_was_there(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"take{suffix}"
    path.write_bytes(b"older")
    writer = open_writer(path, fps=16, size=SIZE)
    writer.push(ramp(3))
    writer.abort()
    assert path.read_bytes() == b"older"
    empty = open_writer(tmp_path / f"empty{suffix}", fps=16, size=SIZE)
    with pytest.raises(MediaError, match="no frames"):
        empty.close()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_sheet_shows_first_and_last_picture_of_every_row() -> None:
    rows = [Row(pictures=ramp(50), caption="a ramp"), Row(pictures=ramp(3), caption="three " * 60, label="#2")]
    sheet = contact_sheet(rows, columns=6)
    bottom = sheet.height - 21
    assert sheet.getpixel((2, 2)) == BACKGROUND
    assert sheet.getpixel((21, bottom)) == (0, 0, 0)
    assert sheet.getpixel((20 + 2 * 52 + 5, bottom)) == (250, 250, 250)
    wide = contact_sheet(rows, columns=6, scale=2.0)
    assert wide.width == 2 * 20 + 6 * (96 + 4) - 4


def test_long_captions_wrap_instead_of_running_off() -> None:
    short = contact_sheet([Row(pictures=ramp(8), caption="short")])
    long = contact_sheet([Row(pictures=ramp(8), caption="a very long caption " * 20 + "x" * 300)])
    assert long.width == short.width
    assert long.height > short.height
    right = long.crop((long.width - 18, 0, long.width, long.height))
    assert right.getcolors() == [(right.width * right.height, BACKGROUND)]


def test_an_empty_sheet_is_refused() -> None:
    with pytest.raises(MediaError, match="at least one row"):
        contact_sheet([])
    with pytest.raises(MediaError, match="at least one picture"):
        contact_sheet([Row(pictures=ramp(1)[:0], caption="nothing")])


@pytest.mark.parametrize("suffix", [".mp4", ".webp", ".gif", ".png"])
def test_files_are_written_several_times_as_large(tmp_path: Path, suffix: str) -> None:
    """Every format; an edge lies where it lay, and Lanczos keeps it steeper than a straight line between pixels."""
    pictures = torch.zeros(20, SIZE.height, SIZE.width, 3, dtype=torch.uint8)
    pictures[:, :, SIZE.width // 2 :] = 200
    path = tmp_path / f"large{suffix}"
    with open_writer(path, fps=16, size=SIZE, scale=3) as writer:
        writer.push(pictures)
        assert writer.frames_written == 20
    if suffix == ".png":
        with Image.open(path) as sheet:
            assert sheet.width >= 4 * 3 * SIZE.width
        return
    if suffix == ".mp4":
        frames = [frame.to_ndarray(format="rgb24") for frame in decoded(path)]
    else:
        with Image.open(path) as animation:
            frames = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(animation)]
    if suffix == ".mp4":  # the others show equal frames as one
        assert len(frames) == 20
    assert frames[0].shape == (3 * SIZE.height, 3 * SIZE.width, 3)
    row = frames[-1][48, :, 1]
    assert row[:66].max() < 25
    assert row[78:].min() > 175


def test_another_scale_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="scale must be one of 1, 2, 3, 4, got 5"):
        open_writer(tmp_path / "take.mp4", fps=16, size=SIZE, scale=5)
    assert not list(tmp_path.iterdir())

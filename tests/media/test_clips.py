"""Reading files from outside: what is read, and what is refused."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from longtake.core.errors import MediaError
from longtake.core.shapes import PictureSize
from longtake.media import clips
from longtake.media.clips import read_image, read_video
from longtake.media.encode import Mp4Writer

SIZE = PictureSize(height=32, width=48)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Two seconds at 16 fps, brighter with every frame."""
    path = tmp_path / "film.mp4"
    levels = (torch.arange(32) * 7).to(torch.uint8).reshape(-1, 1, 1, 1)
    with Mp4Writer(path, fps=16, size=SIZE, crf=1) as writer:
        writer.push(levels.expand(32, 32, 48, 3).contiguous())
    return path


def test_a_video_comes_back_as_it_was_written(film: Path) -> None:
    pictures = read_video(film)
    assert pictures.shape == (32, 32, 48, 3)
    levels = pictures.float().mean(dim=(1, 2, 3))
    assert torch.allclose(levels, torch.arange(32) * 7.0, atol=3)


@pytest.mark.parametrize(("fps", "expected"), [(8, 16), (16, 32), (32, 64), (24, 48), (1, 2)])
def test_another_fps_shows_what_was_on_screen(film: Path, fps: float, expected: int) -> None:
    pictures = read_video(film, fps=fps)
    assert len(pictures) == expected
    levels = pictures.float().mean(dim=(1, 2, 3))
    on_screen = (torch.arange(expected) / fps * 16 + 1e-4).floor() * 7
    assert torch.allclose(levels, on_screen, atol=3)


@pytest.mark.parametrize("fit", ["crop", "fit"])
def test_sizes_are_met(film: Path, fit: clips.Fit) -> None:
    size = PictureSize(height=40, width=40)
    assert read_video(film, size=size, fit=fit).shape == (32, 40, 40, 3)


def test_too_long_a_video_is_refused(film: Path) -> None:
    with pytest.raises(MediaError, match=r"longer than 1\.5 s"):
        read_video(film, max_seconds=1.5)
    assert len(read_video(film, max_seconds=2.0)) == 32


def test_too_large_a_video_is_refused(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "MAX_VIDEO_BYTES", 32 * 48 * 3 * 31)
    with pytest.raises(MediaError, match="smaller"):
        read_video(film)
    monkeypatch.setattr(clips, "MAX_PICTURE_PIXELS", 32 * 48 - 1)
    with pytest.raises(MediaError, match="48x32"):
        read_video(film)


@pytest.mark.parametrize("data", [b"", b"no video at all" * 50, b"\x00\x00\x00\x18ftypmp42" + bytes(200)])
def test_what_is_no_video_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(data)
    with pytest.raises(MediaError, match="as a video"):
        read_video(path)


def test_a_cut_off_video_is_refused(film: Path) -> None:
    film.write_bytes(film.read_bytes()[:700])
    with pytest.raises(MediaError, match="as a video"):
        read_video(film)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    for read in (read_video, lambda path: read_image(path, SIZE)):
        with pytest.raises(MediaError, match="does not exist"):
            read(tmp_path / "none.mp4")
        with pytest.raises(MediaError, match="is a folder"):
            read(tmp_path)


def test_an_image_is_cropped_or_fitted(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.new("RGB", (400, 100), (200, 100, 50)).save(path)
    cropped = read_image(path, SIZE)
    assert cropped.shape == (1, 32, 48, 3)
    assert cropped.reshape(-1, 3).unique(dim=0).tolist() == [[200, 100, 50]]
    fitted = read_image(path, SIZE, fit="fit")
    assert fitted[0, 0, 24].tolist() == [0, 0, 0]
    assert fitted[0, 16, 24].tolist() == [200, 100, 50]


def test_transparency_becomes_black_and_phone_pictures_stand_upright(tmp_path: Path) -> None:
    path = tmp_path / "cutout.png"
    Image.new("RGBA", (48, 32), (200, 100, 50, 0)).save(path)
    assert read_image(path, SIZE).max() == 0
    picture = Image.new("RGB", (32, 48), (10, 10, 10))
    picture.paste((250, 250, 250), (0, 0, 32, 24))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate right to stand upright
    path = tmp_path / "phone.png"
    picture.save(path, exif=exif)
    upright = read_image(path, SIZE)
    assert upright[0, 16, 40].tolist() == [250, 250, 250]
    assert upright[0, 16, 5].tolist() == [10, 10, 10]


def test_bombs_and_rubbish_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "picture.png"
    Image.new("1", (5000, 4000)).save(path)
    with pytest.raises(MediaError, match="5000x4000"):
        read_image(path, SIZE)
    path.write_bytes(path.read_bytes()[:60])
    monkeypatch.setattr(clips, "MAX_PICTURE_PIXELS", 10**9)
    with pytest.raises(MediaError, match="as a picture"):
        read_image(path, SIZE)
    path.write_bytes(b"rubbish")
    with pytest.raises(MediaError, match="as a picture"):
        read_image(path, SIZE)

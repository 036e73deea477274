"""Uploads, well meant and otherwise."""

import io
import os
import struct
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest
import torch
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from longtake.core.errors import InputError
from longtake.core.shapes import PictureSize
from longtake.media.clips import read_image, read_video
from longtake.media.encode import Mp4Writer
from longtake.serve import assets as uploads
from longtake.serve.assets import Assets
from longtake.serve.errors import HANDLERS, NotFoundError, TooLargeError

SIZE = PictureSize(height=32, width=48)


@pytest.fixture
def assets(tmp_path: Path) -> Assets:
    return Assets(tmp_path / "assets", size=SIZE, fps=16.0, max_seconds=2.0)


@pytest.fixture
def client(assets: Assets) -> Iterator[TestClient]:
    app = FastAPI(exception_handlers=HANDLERS)
    app.state.assets = assets
    app.include_router(uploads.router)
    with TestClient(app) as client:
        yield client


def picture(kind: str = "PNG", width: int = 100, height: int = 60, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 40, 40)).save(file, kind, **options)
    return file.getvalue()


def clip(path: Path, num_frames: int, fps: float = 16.0) -> bytes:
    size = PictureSize(height=64, width=64)
    with Mp4Writer(path, fps=fps, size=size) as writer:
        writer.push(torch.full((num_frames, 64, 64, 3), 120, dtype=torch.uint8))
    return path.read_bytes()


def bomb(width: int, height: int) -> bytes:
    """A small PNG that claims to be large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_picture_is_kept_as_the_model_will_see_it(client: TestClient, assets: Assets, kind: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    answer = client.post("/api/assets", content=picture(kind, exif=exif.tobytes()))
    assert answer.status_code == 201, answer.text
    asset = answer.json()
    assert asset == {"id": asset["id"], "kind": "image", "width": 48, "height": 32, "frames": 1, "seconds": 0.0}
    assert len(asset["id"]) == 26
    path = assets.path_of(asset["id"])
    assert read_image(path, SIZE).shape == (1, 32, 48, 3)
    preview = client.get(f"/api/assets/{asset['id']}.jpg")
    assert preview.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(preview.content)) as opened:
        assert opened.size == (48, 32)
    assert all(b"where I live" not in kept.read_bytes() for kept in assets.folder.iterdir())
    assert sorted(kept.suffix for kept in assets.folder.iterdir()) == [".jpg", ".png"]


def test_a_form_is_read_as_well_and_its_file_name_is_not(client: TestClient, assets: Assets) -> None:
    answer = client.post("/api/assets", files={"file": ("../../../evil.png", picture(), "text/html")})
    assert answer.status_code == 201, answer.text
    assert assets.path_of(answer.json()["id"], "image").parent == assets.folder
    with pytest.raises(NotFoundError, match="no video"):
        assets.path_of(answer.json()["id"], "video")
    assert client.post("/api/assets", files={"text": (None, "no file")}).status_code == 400


def test_a_video_is_kept_at_the_model_s_size_and_speed(client: TestClient, assets: Assets, tmp_path: Path) -> None:
    answer = client.post("/api/assets", content=clip(tmp_path / "a.mp4", 30, fps=30.0))
    assert answer.status_code == 201, answer.text
    asset = answer.json()
    assert (asset["kind"], asset["frames"], asset["seconds"]) == ("video", 16, 1.0)
    assert read_video(assets.path_of(asset["id"])).shape == (16, 32, 48, 3)
    assert client.get(f"/api/assets/{asset['id']}.jpg").status_code == 200
    assert sorted(kept.suffix for kept in assets.folder.iterdir()) == [".jpg", ".mp4"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected a PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "expected a PNG"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "expected a PNG"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "expected a PNG"),
        (picture("TIFF"), "expected a PNG"),
        (picture()[:-40], "cannot read the upload"),
        (b"\xff\xd8\xff" + b"x" * 100, "cannot read the upload"),
        (b"\0\0\0\x18ftypisom" + b"x" * 100, "cannot read the upload"),
        (bomb(5000, 5000), "25,000,000|5000x5000 pixels"),
        (bomb(60000, 60000), "cannot read the upload"),
    ],
    ids=["nothing", "svg", "playlist", "concat", "tiff", "cut", "no jpeg", "no mp4", "large", "bomb"],
)
def test_what_is_no_picture_is_refused_and_nothing_stays(
    client: TestClient, assets: Assets, data: bytes, message: str
) -> None:
    answer = client.post("/api/assets", content=data)
    assert answer.status_code == 400, answer.text
    said = answer.json()["error"]["message"]
    assert any(part in said for part in message.split("|"))
    assert str(assets.folder) not in said
    assert list(assets.folder.iterdir()) == []


def test_a_video_that_is_too_long_is_refused_and_nothing_stays(
    client: TestClient, assets: Assets, tmp_path: Path
) -> None:
    answer = client.post("/api/assets", content=clip(tmp_path / "a.mp4", 40))
    assert answer.status_code == 400
    assert "longer than 2 s" in answer.json()["error"]["message"]
    assert list(assets.folder.iterdir()) == []


def test_a_stream_without_end_is_cut_off(assets: Assets) -> None:
    sent = 0

    async def endless(head: bytes) -> AsyncIterator[bytes]:
        nonlocal sent
        yield head
        while True:
            sent += uploads.MiB
            yield bytes(uploads.MiB)

    for head, limit in ((picture(), 20), (b"\0\0\0\x18ftypisom", 200)):
        sent = 0
        with pytest.raises(TooLargeError, match=f"at most {limit} MiB"):
            anyio.run(assets.receive, endless(head))
        assert sent <= (limit + 1) * uploads.MiB
    sent = 0
    with pytest.raises(InputError, match="expected a PNG"):
        anyio.run(assets.receive, endless(b"no picture at all"))
    assert sent == 0
    assert list(assets.folder.iterdir()) == []


def test_old_uploads_are_removed_unless_they_are_needed(client: TestClient, assets: Assets) -> None:
    old, needed, fresh = (client.post("/api/assets", content=picture()).json()["id"] for _ in range(3))
    long_ago = time.time() - uploads.KEPT_S - 60
    for name in (old, needed):
        for path in assets.folder.glob(f"{name}.*"):
            os.utime(path, (long_ago, long_ago))
    assets.sweep(keep={needed})
    assert {path.stem for path in assets.folder.iterdir()} == {needed, fresh}
    assert client.get(f"/api/assets/{old}.jpg").status_code == 404


@pytest.mark.parametrize("name", ["", "x", "../../../../etc/passwd.....", "A" * 27, "ä" * 26])
def test_names_that_are_not_ours_are_not_looked_for(assets: Assets, name: str) -> None:
    with pytest.raises(NotFoundError, match="kept for a day"):
        assets.path_of(name)

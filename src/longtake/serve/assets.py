"""Uploaded pictures and videos: untrusted input, stored as the model will see it, deleted after a day.

Neither the name nor the bytes of an uploaded file are stored: it is decoded within limits, cropped to the model's size,
and encoded again under a random name.
"""

import struct
import time
from collections.abc import AsyncIterable, AsyncIterator, Collection
from pathlib import Path
from typing import Literal

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from PIL import Image
from pydantic import BaseModel
from starlette.datastructures import UploadFile

from longtake.core.errors import InputError, MediaError
from longtake.core.shapes import PictureSize
from longtake.media.clips import MAX_PICTURE_PIXELS, read_image, stream_video
from longtake.media.encode import Mp4Writer
from longtake.media.live import jpeg_of
from longtake.media.targets import reason
from longtake.serve.errors import NotFoundError, TooLargeError
from longtake.serve.store import random_id

MiB = 1024**2
MAX_IMAGE_BYTES = 20 * MiB
MAX_VIDEO_BYTES = 200 * MiB
MAX_DECODE_S = 120.0  # maximum wall time
KEPT_S = 24 * 3600.0
ID_LENGTH = 26
HEAD_BYTES = 12  # enough to detect the type of a file
DAMAGED = (  # errors that Pillow raises for damaged files
    OSError, ValueError, SyntaxError, IndexError, KeyError, TypeError, OverflowError, EOFError, struct.error,
    Image.DecompressionBombError,
)  # fmt: skip
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")

Kind = Literal["image", "video"]

router = APIRouter()


class Asset(BaseModel):
    """A stored upload."""

    id: str
    kind: Kind
    width: int
    height: int
    frames: int
    seconds: float


class Assets:
    """The uploads of a server, in one folder."""

    def __init__(self, folder: Path, *, size: PictureSize, fps: float, max_seconds: float = 60.0) -> None:
        """Create the folder.

        Args:
            folder: folder of the uploads.
            size: size to which uploads are cropped.
            fps: frame rate of stored videos.
            max_seconds: maximum length of a video.
        """
        self.folder = folder
        self.size = size
        self.fps = fps
        self.max_seconds = max_seconds
        self._decoding = CapacityLimiter(1)  # decoding takes all cores; the model needs them too
        folder.mkdir(parents=True, exist_ok=True)

    async def receive(self, pieces: AsyncIterable[bytes]) -> Asset:
        """Store an upload that arrives in pieces.

        Raises:
            InputError: it is not a supported picture or video, or is too large or too long.
            TooLargeError: it has too many bytes.
        """
        path = self.folder / f"{random_id(ID_LENGTH)}.upload"
        try:
            await _to_disk(path, pieces)
            return await to_thread.run_sync(self.keep, path, limiter=self._decoding)
        finally:
            path.unlink(missing_ok=True)

    def keep(self, path: Path) -> Asset:
        """Decode a file and encode it again as an asset.

        Raises:
            InputError: it cannot be decoded, or is too large or too long.
        """
        with path.open("rb") as file:
            kind = kind_of(file.read(HEAD_BYTES))
        asset_id = random_id(ID_LENGTH)
        try:
            frames = self._keep_image(path, asset_id) if kind == "image" else self._keep_video(path, asset_id)
        except MediaError as error:
            raise InputError(str(error).replace(str(path), "the upload")) from error
        seconds = 0.0 if kind == "image" else round(frames / self.fps, 3)
        return Asset(
            id=asset_id, kind=kind, width=self.size.width, height=self.size.height, frames=frames, seconds=seconds
        )

    def path_of(self, asset_id: str, kind: Kind | None = None) -> Path:
        """Return the path of an asset.

        Args:
            asset_id: its id.
            kind: the kind it must have; None: either.

        Raises:
            NotFoundError: there is no such asset, or it has been deleted.
        """
        return find_asset(self.folder, asset_id, kind)

    def preview_of(self, asset_id: str) -> Path:
        """Return the path of a JPEG of an asset's first picture."""
        return self.path_of(asset_id).with_suffix(".jpg")

    def sweep(self, keep: Collection[str] = ()) -> None:
        """Delete uploads older than a day, except the ids in `keep`."""
        for path in self.folder.iterdir():
            if path.name.split(".")[0] not in keep and time.time() - path.stat().st_mtime > KEPT_S:
                path.unlink(missing_ok=True)

    def _keep_image(self, path: Path, asset_id: str) -> int:
        try:
            with Image.open(path, formats=IMAGE_FORMATS) as opened:
                if opened.width * opened.height > MAX_PICTURE_PIXELS:  # read from the header; nothing is decoded yet
                    raise InputError(
                        f"the picture has {opened.width}x{opened.height} pixels, at most {MAX_PICTURE_PIXELS:,} are "
                        "taken; make it smaller first"
                    )
                opened.verify()
        except DAMAGED as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"cannot read the upload as a picture: {reason(error).replace(str(path), '')}") from error
        picture = read_image(path, self.size)[0]
        Image.fromarray(picture.numpy()).save(self.folder / f"{asset_id}.png")
        (self.folder / f"{asset_id}.jpg").write_bytes(jpeg_of(picture))
        return 1

    def _keep_video(self, path: Path, asset_id: str) -> int:
        end_s, most = time.monotonic() + MAX_DECODE_S, round(self.max_seconds * self.fps)
        preview = b""
        with Mp4Writer(self.folder / f"{asset_id}.mp4", fps=self.fps, size=self.size) as writer:
            for picture in stream_video(path, self.size, self.fps, until_s=end_s):
                preview = preview or jpeg_of(picture[0])
                if writer.frames_written >= most:
                    raise InputError(f"the video is longer than {self.max_seconds:g} s; cut it first")
                if time.monotonic() > end_s:
                    raise InputError("the video takes too long to decode; make it smaller first")
                writer.push(picture)
        (self.folder / f"{asset_id}.jpg").write_bytes(preview)
        return writer.frames_written


def find_asset(folder: Path, asset_id: str, kind: Kind | None = None) -> Path:
    """Return the path of an asset in a folder; see `Assets.path_of`."""
    if len(asset_id) == ID_LENGTH and asset_id.isascii() and asset_id.isalnum():
        for suffix, is_a in ((".png", "image"), (".mp4", "video")):
            path = folder / f"{asset_id}{suffix}"
            if kind in (None, is_a) and path.exists():
                return path
    raise NotFoundError(f"there is no {kind or 'upload'} {asset_id[:ID_LENGTH]}; uploads are kept for a day")


@router.post("/api/assets", status_code=201)
async def upload(request: Request) -> Asset:
    """Store a picture or a video, sent as raw bytes or as a form with one file."""
    assets: Assets = request.app.state.assets
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await assets.receive(request.stream())
    async with request.form(max_files=1, max_fields=10) as form:
        for value in form.values():
            if isinstance(value, UploadFile):
                return await assets.receive(pieces_of(value))
    raise InputError("the form holds no file")


@router.get("/api/assets/{asset_id}.jpg")
def preview(request: Request, asset_id: str) -> FileResponse:
    """Return an upload as the model will see it, as JPEG; for a video, its first picture."""
    assets: Assets = request.app.state.assets
    headers = {"Cache-Control": "private, max-age=86400, immutable"}
    return FileResponse(assets.preview_of(asset_id), media_type="image/jpeg", headers=headers)


async def pieces_of(file: UploadFile) -> AsyncIterator[bytes]:
    """Yield the bytes of a form's file in pieces of 1 MiB."""
    while piece := await file.read(MiB):
        yield piece


def kind_of(head: bytes) -> Kind:
    """Detect the kind of a file from its first bytes.

    Only these video containers are accepted: others, such as playlists, may name files or URLs for FFmpeg to open.

    Raises:
        InputError: the type is not supported.
    """
    if head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")):
        return "image"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image"
    if head[4:8] == b"ftyp" or head.startswith(b"\x1a\x45\xdf\xa3") or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return "video"
    raise InputError("expected a PNG, JPEG, WebP or GIF picture, or an MP4, MOV, WebM, Matroska or AVI video")


async def _to_disk(path: Path, pieces: AsyncIterable[bytes]) -> None:
    head, received, limit = b"", 0, MAX_IMAGE_BYTES
    with path.open("wb") as file:
        async for piece in pieces:
            if len(head) < HEAD_BYTES:
                head += piece[: HEAD_BYTES - len(head)]
                if len(head) == HEAD_BYTES:
                    limit = MAX_IMAGE_BYTES if kind_of(head) == "image" else MAX_VIDEO_BYTES
            received += len(piece)
            if received > limit:
                raise TooLargeError(f"at most {limit // MiB} MiB are taken of such a file")
            await to_thread.run_sync(file.write, piece)

"""The files of finished videos: the mp4, and pictures of it, which are made when they are first asked for."""

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from longtake.core.shapes import PictureSize
from longtake.media.clips import stream_video
from longtake.media.targets import Target
from longtake.serve.errors import ConflictError, NotFoundError
from longtake.serve.store import VideoRow

SPRITES = 16


class VideoFiles:
    """Files of a server's videos in one folder."""

    def __init__(self, folder: Path, size: PictureSize, fps: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.size = size
        self.fps = fps

    def path(self, video_id: str) -> Path:
        """Path of the mp4 of a video, finished or not."""
        return self.folder / f"{video_id}.mp4"

    def all(self, row: VideoRow) -> Iterator[Path]:
        """Paths of all files of a video: the mp4 and its pictures, as far as they exist."""
        return self.folder.glob(f"{row.id}.*")

    def mp4(self, row: VideoRow) -> Path:
        """Path of the finished mp4.

        Raises:
            ConflictError: the video is unfinished or has failed.
            NotFoundError: the file has been removed.
        """
        if row.status == "failed":
            raise ConflictError(f"{row.id} has failed: {row.error}")
        if row.status != "completed":
            raise ConflictError(f"{row.id} is not ready: it is {row.status}; wait until it is completed")
        path = self.path(row.id)
        if not path.exists():
            raise NotFoundError(f"the file of {row.id} has been removed")
        return path

    def thumbnail(self, row: VideoRow) -> Path:
        """Path of the first picture as WebP. Raises as `mp4`."""
        video, path = self.mp4(row), self.folder / f"{row.id}.webp"
        if not path.exists():
            picture = next(stream_video(video, self.size, self.fps))[0]
            _save(Image.fromarray(picture.numpy()), path)
        return path

    def spritesheet(self, row: VideoRow) -> Path:
        """Path of a JPEG of up to sixteen pictures, four per row. Raises as `mp4`."""
        video, path = self.mp4(row), self.folder / f"{row.id}.jpg"
        if not path.exists():
            small = _fitting(self.size, 320)
            pictures = stream_video(video, small, SPRITES / float(row.seconds))
            sheet = Image.new("RGB", (4 * small.width, 4 * small.height))
            for i, picture in zip(range(SPRITES), pictures, strict=False):
                sheet.paste(Image.fromarray(picture[0].numpy()), (i % 4 * small.width, i // 4 * small.height))
            _save(sheet, path)
        return path


def _fitting(size: PictureSize, width: int) -> PictureSize:
    """Scale a size down to at most `width` pixels wide; the aspect ratio stays."""
    scale = min(1.0, width / size.width)
    return PictureSize(height=round(size.height * scale), width=round(size.width * scale))


def _save(picture: Image.Image, path: Path) -> None:
    target = Target(path)
    target.prepare()
    picture.save(target.growing_path, quality=88)
    target.commit(target.growing_path)

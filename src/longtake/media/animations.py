"""Writers of takes in all output formats, chosen by the suffix of the file's name."""

import itertools
from pathlib import Path
from types import TracebackType
from typing import Protocol, runtime_checkable

import torch
from PIL import Image
from torch import Tensor

from longtake.core.errors import MediaError
from longtake.core.shapes import PictureSize
from longtake.media.encode import Mp4Writer, check_pictures
from longtake.media.enlarged import Enlarger, scaled_size
from longtake.media.sheets import Row, contact_sheet
from longtake.media.targets import Target, reason

SUFFIXES = (".mp4", ".gif", ".webp", ".png")
SHEET_COLUMNS = 4
SHEET_PICTURES = 16


@runtime_checkable
class FrameWriter(Protocol):
    """Interface of writers that receive pictures chunk by chunk; the file has its final name only after `close`.

    As a context manager, a writer closes on normal exit and aborts on an exception.
    """

    @property
    def frames_written(self) -> int:
        """Number of frames written so far."""
        ...

    @property
    def path(self) -> Path:
        """Final path of the file."""
        ...

    @property
    def bytes_written(self) -> int:
        """Number of bytes on disk so far."""
        ...

    def push(self, pictures: Tensor) -> None:
        """Add pictures (uint8, `f h w c`, RGB)."""
        ...

    def close(self) -> None:
        """Finish the file and rename it to its final path."""
        ...

    def abort(self) -> None:
        """Remove all unfinished files; an earlier file at the final path is untouched."""
        ...

    def __enter__(self) -> "FrameWriter":
        """Return the writer itself."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close, or abort after an exception."""
        ...


def open_writer(path: Path, *, fps: float, size: PictureSize, scale: int = 1) -> FrameWriter:
    """Open a writer for `.mp4` (written as frames arrive), `.gif`, `.webp` (animated) or `.png` (a contact sheet).

    Args:
        path: path of the file.
        fps: frames per second.
        size: size of the pictures that are pushed.
        scale: enlargement of the written pictures: 1, 2, 3 or 4.

    Raises:
        MediaError: the suffix is not supported, or the path cannot be written.
        InputError: the scale is not supported.
    """
    check_suffix(path)
    large = scaled_size(size, scale)
    kind = Mp4Writer if path.suffix.lower() == ".mp4" else PictureWriter
    writer = kind(path, fps=fps, size=large)
    return writer if scale == 1 else EnlargedWriter(writer, size, scale)


def check_suffix(path: Path) -> None:
    """Check that a writer exists for a file's suffix.

    Raises:
        MediaError: there is none; the message lists the supported suffixes.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise MediaError(f'cannot tell what to write from "{path.name}"; end the name in {", ".join(SUFFIXES)}')


class PictureWriter:
    """Writer of GIF, animated WebP and PNG contact sheets, by Pillow.

    These formats are written at the end: all frames of an animation stay in memory until `close` (44 MB for a minute at
    160x96 and 16 fps). For a contact sheet at most 31 evenly spaced frames are kept, however long the take is.

    Raises:
        MediaError: the path cannot be written.
    """

    def __init__(self, path: Path, *, fps: float, size: PictureSize) -> None:
        self.fps = fps
        self.size = size
        self.frames_written = 0
        self._target = Target(path)
        self._target.prepare()
        self._kept: list[Tensor] = []
        self._keep_every = 1
        self._open = True

    @property
    def path(self) -> Path:
        """Final path of the file."""
        return self._target.path

    @property
    def bytes_written(self) -> int:
        """Size of the finished file; 0 before `close`."""
        return self.path.stat().st_size if not self._open and self.path.exists() else 0

    def push(self, pictures: Tensor) -> None:
        """Keep pictures (uint8, `f h w c`, RGB) for `close`.

        Raises:
            MediaError: the pictures have another size or type, or the writer is closed.
        """
        if not self._open:
            raise MediaError(f"{self.path} is closed; open a new writer")
        check_pictures(pictures, self.size)
        for picture in pictures.cpu():
            if self.frames_written % self._keep_every == 0:
                self._kept.append(picture.clone())
            self.frames_written += 1
            if self.path.suffix.lower() == ".png" and len(self._kept) == 2 * SHEET_PICTURES:
                self._kept, self._keep_every = self._kept[::2], self._keep_every * 2

    def close(self) -> None:
        """Write the file and rename it to its final path; a second call does nothing.

        Raises:
            MediaError: nothing was pushed, or the disk is full.
        """
        if not self._open:
            return
        if not self._kept:
            self.abort()
            raise MediaError(f"no frames were made, so {self.path} was not written")
        self._open = False
        try:
            self._save()
        except OSError as error:
            self._target.discard()
            raise MediaError(f"cannot write {self.path}: {reason(error)}") from error
        self._target.commit(self._target.growing_path)

    def abort(self) -> None:
        """Remove all unfinished files; an earlier file at the final path is untouched."""
        if self._open:
            self._open = False
            self._kept.clear()
            self._target.discard()

    def __enter__(self) -> "PictureWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _save(self) -> None:
        growing = self._target.growing_path
        suffix = self.path.suffix.lower()
        if suffix == ".png":
            self._sheet().save(growing)
            return
        first, *rest = (Image.fromarray(picture.numpy()) for picture in self._kept)
        if suffix == ".webp":
            first.save(
                growing, save_all=True, append_images=rest, duration=self._durations(1), loop=0, quality=85, method=4
            )
        else:
            # GIF durations are in hundredths of a second.
            first.save(growing, save_all=True, append_images=rest, duration=self._durations(10), loop=0, disposal=1)

    def _durations(self, tick_ms: int) -> list[int]:
        """Duration of each frame in ms, a multiple of `tick_ms`, with rounding errors that do not accumulate."""
        ticks = [round(idx * 1000 / self.fps / tick_ms) for idx in range(len(self._kept) + 1)]
        return [(stop - start) * tick_ms for start, stop in itertools.pairwise(ticks)]

    def _sheet(self) -> Image.Image:
        shown = torch.linspace(0, len(self._kept) - 1, min(SHEET_PICTURES, len(self._kept))).round().long().tolist()
        rows = []
        for start in range(0, len(shown), SHEET_COLUMNS):
            part = shown[start : start + SHEET_COLUMNS]
            first_s, last_s = (idx * self._keep_every / self.fps for idx in (part[0], part[-1]))
            pictures = torch.stack([self._kept[idx] for idx in part])
            rows.append(Row(pictures=pictures, caption="", label=f"{first_s:.1f} s - {last_s:.1f} s"))
        return contact_sheet(rows, columns=SHEET_COLUMNS, scale=2.0 if self.size.width < 320 else 1.0)


class EnlargedWriter:
    """Writer that enlarges pictures and passes them to another writer."""

    def __init__(self, writer: FrameWriter, size: PictureSize, scale: int) -> None:
        """Wrap a writer.

        Args:
            writer: a writer of pictures of `scaled_size(size, scale)`.
            size: size of the pictures that are pushed.
            scale: enlargement, a whole number.
        """
        self._writer, self._size = writer, size
        self._enlarger = Enlarger(scaled_size(size, scale))

    @property
    def frames_written(self) -> int:
        """Number of frames that the other writer has written."""
        return self._writer.frames_written

    @property
    def path(self) -> Path:
        """Final path of the other writer's file."""
        return self._writer.path

    @property
    def bytes_written(self) -> int:
        """Number of bytes that the other writer has written."""
        return self._writer.bytes_written

    def push(self, pictures: Tensor) -> None:
        """Enlarge pictures (uint8, `f h w c`, RGB) one by one, and push them to the other writer.

        Raises:
            MediaError: the pictures have another size or type, or the other writer fails.
        """
        check_pictures(pictures, self._size)
        for picture in pictures:
            self._writer.push(self._enlarger(picture))

    def close(self) -> None:
        """Close the other writer."""
        self._writer.close()

    def abort(self) -> None:
        """Abort the other writer."""
        self._writer.abort()

    def __enter__(self) -> "EnlargedWriter":
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)

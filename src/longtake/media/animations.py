"""Every file a take can become, chosen by the suffix of its name."""

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
    """Takes pictures chunk by chunk; the file has its final name only after `close`.

    As a context manager it closes when left normally and aborts when left by an exception.
    """

    @property
    def frames_written(self) -> int:
        """So far."""
        ...

    @property
    def path(self) -> Path:
        """The name the finished file will have."""
        ...

    @property
    def bytes_written(self) -> int:
        """What lies on the disk so far."""
        ...

    def push(self, pictures: Tensor) -> None:
        """Add pictures (uint8, `f h w c`, RGB)."""
        ...

    def close(self) -> None:
        """Finish the file and give it its name."""
        ...

    def abort(self) -> None:
        """Leave nothing behind; what had the name before is untouched."""
        ...

    def __enter__(self) -> "FrameWriter":
        """The writer itself."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close, or abort after an exception."""
        ...


def open_writer(path: Path, *, fps: float, size: PictureSize, scale: int = 1) -> FrameWriter:
    """A writer for `.mp4` (grows while frames arrive), `.gif`, `.webp` (animated) or `.png` (a contact sheet).

    Args:
        path: of the file.
        fps: frames a second.
        size: of the pictures that are pushed.
        scale: how many times larger than that they are written: 1, 2, 3 or 4.

    Raises:
        MediaError: another suffix, or the path cannot be written.
        InputError: another scale.
    """
    check_suffix(path)
    large = scaled_size(size, scale)
    kind = Mp4Writer if path.suffix.lower() == ".mp4" else PictureWriter
    writer = kind(path, fps=fps, size=large)
    return writer if scale == 1 else EnlargedWriter(writer, size, scale)


def check_suffix(path: Path) -> None:
    """Refuse a name that no writer is for.

    Raises:
        MediaError: says which suffixes there are.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise MediaError(f'cannot tell what to write from "{path.name}"; end the name in {", ".join(SUFFIXES)}')


class PictureWriter:
    """GIF, animated WebP or a PNG contact sheet, by Pillow.

    These formats are put together at the end: every frame of an animation is kept in memory until `close` (a minute at
    160x96 and 16 fps is 44 MB), while a sheet keeps between 16 and 31 frames however long the take is.

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
        """The name the finished file will have."""
        return self._target.path

    @property
    def bytes_written(self) -> int:
        """0 until closed."""
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
        """Write the file and give it its name; a second call does nothing.

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
        """Leave nothing behind; what had the name before is untouched."""
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
            # a GIF counts hundredths of a second
            first.save(growing, save_all=True, append_images=rest, duration=self._durations(10), loop=0, disposal=1)

    def _durations(self, tick_ms: int) -> list[int]:
        """How long each frame is shown, in ms, a multiple of `tick_ms`; the errors of rounding do not add up."""
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
    """Hands pictures on to another writer, each enlarged to that writer's size."""

    def __init__(self, writer: FrameWriter, size: PictureSize, scale: int) -> None:
        """Args:
        writer: takes pictures of `scaled_size(size, scale)`.
        size: of the pictures that are pushed.
        scale: a whole number.
        """
        self._writer, self._size = writer, size
        self._enlarger = Enlarger(scaled_size(size, scale))

    @property
    def frames_written(self) -> int:
        """By the other writer."""
        return self._writer.frames_written

    @property
    def path(self) -> Path:
        """Of the other writer."""
        return self._writer.path

    @property
    def bytes_written(self) -> int:
        """By the other writer."""
        return self._writer.bytes_written

    def push(self, pictures: Tensor) -> None:
        """Enlarge pictures (uint8, `f h w c`, RGB) one by one, and push them.

        Raises:
            MediaError: the pictures have another size or type; or what the other writer raises.
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

"""Sources: videos that arrive while a take follows them, from a file, an iterator or a camera, in bounded queues."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from longtake.core.errors import InputError
from longtake.core.shapes import Pictures, PictureSize


@runtime_checkable
class Source(Protocol):
    """Interface of sources of pictures."""

    def ready(self, num: int) -> bool:
        """Whether `take` would return without waiting."""
        ...

    def take(self, num: int) -> Pictures | None:
        """Wait for and return the next `num` pictures; fewer at the end, None after it."""
        ...


class IteratorSource:
    """Source that pulls pictures from an iterator only when they are needed, so that none queue up."""

    def __init__(self, pictures: Iterable[Tensor], size: PictureSize) -> None:
        """Read from `pictures`: uint8 [height, width, 3] one by one, or [frames, height, width, 3] in pieces."""
        self._pieces: Iterator[Tensor] = iter(pictures)
        self._size = size
        self._rest: list[Pictures] = []

    def ready(self, num: int) -> bool:
        """Always true, since it is unknown whether the iterator blocks."""
        del num
        return True

    def take(self, num: int) -> Pictures | None:
        """Return the next `num` pictures, see `Source`.

        Raises:
            InputError: a piece has another size or type.
        """
        while sum(map(len, self._rest)) < num and (piece := next(self._pieces, None)) is not None:
            # The piece is copied, since cameras reuse their buffers.
            self._rest.append(checked_pictures(torch.as_tensor(piece), self._size).clone())
        if not self._rest:
            return None
        joined = torch.cat(self._rest)
        self._rest = [joined[num:]] if len(joined) > num else []
        return joined[:num]


class LiveSource:
    """Source to which another thread pushes pictures; beyond the capacity, the oldest are dropped."""

    def __init__(self, size: PictureSize, *, capacity: int = 24) -> None:
        """Create a source of pictures of `size`; `capacity`, in frames, bounds the delay (by default two chunks)."""
        self._size = size
        self._waiting: deque[Pictures] = deque()
        self._capacity = capacity
        self._changed = threading.Condition()
        self._closed = False
        self.num_dropped = 0

    def push(self, picture: Tensor) -> None:
        """Add one picture, uint8 [height, width, 3], without blocking.

        Raises:
            InputError: it has another size or type.
        """
        # The picture is copied, since cameras reuse their buffers.
        checked = checked_pictures(torch.as_tensor(picture), self._size).clone()
        with self._changed:
            self._waiting.extend(checked.split(1))
            while len(self._waiting) > self._capacity:
                self._waiting.popleft()
                self.num_dropped += 1
            self._changed.notify()

    def ready(self, num: int) -> bool:
        """Whether `num` pictures are waiting, or the source is closed."""
        with self._changed:
            return self._closed or len(self._waiting) >= num

    def close(self) -> None:
        """Mark the end of the source."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def take(self, num: int) -> Pictures | None:
        """Wait for and return the next `num` pictures, see `Source`.

        Raises:
            InputError: `num` exceeds the capacity.
        """
        if num > self._capacity:
            raise InputError(f"the source holds {self._capacity} frames, a chunk needs {num}; give it more capacity")
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) >= num or self._closed)
            pictures = [self._waiting.popleft() for _ in range(min(num, len(self._waiting)))]
        return torch.cat(pictures) if pictures else None


def checked_pictures(pictures: Tensor, size: PictureSize) -> Pictures:
    """Check pictures, and return them as uint8 [frames, height, width, 3]; a single picture gets a frame axis.

    Raises:
        InputError: they have another size or type.
    """
    several = pictures[None] if pictures.ndim == 3 else pictures
    if several.dtype != torch.uint8 or several.ndim != 4 or several.shape[-1] != 3 or not len(several):
        raise InputError(f"pictures are uint8 [frames, height, width, 3], got {pictures.dtype} {list(pictures.shape)}")
    height, width = several.shape[1:3]
    if (height, width) != (size.height, size.width):
        raise InputError(f"the pictures are {width}x{height}, the studio makes {size}; resize them first")
    return several

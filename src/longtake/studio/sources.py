"""Videos that arrive while a take is made of them: from a file, an iterator, a camera. Never a queue without end."""

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
    """Gives pictures when asked."""

    def ready(self, num: int) -> bool:
        """Would `take` answer without waiting?"""
        ...

    def take(self, num: int) -> Pictures | None:
        """The next `num` pictures; fewer at the end, None after it. Waits while there are too few yet."""
        ...


class IteratorSource:
    """Pictures of an iterator, pulled when they are needed: a slow maker waits, a fast one is not run ahead."""

    def __init__(self, pictures: Iterable[Tensor], size: PictureSize) -> None:
        """Args: pictures: uint8 [height, width, 3] one by one, or [frames, height, width, 3] in pieces."""
        self._pieces: Iterator[Tensor] = iter(pictures)
        self._size = size
        self._rest: list[Pictures] = []

    def ready(self, num: int) -> bool:
        """Whoever makes the pictures is asked for them, and is not known to wait."""
        del num
        return True

    def take(self, num: int) -> Pictures | None:
        """See `Source`.

        Raises:
            InputError: a piece has another size or type.
        """
        while sum(map(len, self._rest)) < num and (piece := next(self._pieces, None)) is not None:
            # A copy: cameras decode into one buffer again and again.
            self._rest.append(checked_pictures(torch.as_tensor(piece), self._size).clone())
        if not self._rest:
            return None
        joined = torch.cat(self._rest)
        self._rest = [joined[num:]] if len(joined) > num else []
        return joined[:num]


class LiveSource:
    """Pictures that are pushed by a camera or a game, from another thread. Too many: the oldest are dropped."""

    def __init__(self, size: PictureSize, *, capacity: int = 24) -> None:
        """Args: capacity: frames that wait at most; two chunks keep the delay bounded."""
        self._size = size
        self._waiting: deque[Pictures] = deque()
        self._capacity = capacity
        self._changed = threading.Condition()
        self._closed = False
        self.num_dropped = 0

    def push(self, picture: Tensor) -> None:
        """Hand over one picture, uint8 [height, width, 3]. Never waits.

        Raises:
            InputError: it has another size or type.
        """
        checked = checked_pictures(torch.as_tensor(picture), self._size).clone()  # the camera's buffer is its own
        with self._changed:
            self._waiting.extend(checked.split(1))
            while len(self._waiting) > self._capacity:
                self._waiting.popleft()
                self.num_dropped += 1
            self._changed.notify()

    def ready(self, num: int) -> bool:
        """Are so many waiting, or will no more come?"""
        with self._changed:
            return self._closed or len(self._waiting) >= num

    def close(self) -> None:
        """No more will come."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def take(self, num: int) -> Pictures | None:
        """See `Source`.

        Raises:
            InputError: more are asked for than can ever wait.
        """
        if num > self._capacity:
            raise InputError(f"the source holds {self._capacity} frames, a chunk needs {num}; give it more capacity")
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) >= num or self._closed)
            pictures = [self._waiting.popleft() for _ in range(min(num, len(self._waiting)))]
        return torch.cat(pictures) if pictures else None


def checked_pictures(pictures: Tensor, size: PictureSize) -> Pictures:
    """Pictures as [frames, height, width, 3] of a size.

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

"""Where the time goes: named spans of wall time."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Stopwatch:
    """Adds up seconds by name until they are read."""

    def __init__(self, settle: Callable[[], None] = lambda: None) -> None:
        """Args: settle: waits until a device that works ahead of this thread has done what it was told."""
        self._settle = settle
        self._seconds: dict[str, float] = {}
        self._inner = 0.0  # seconds of spans inside the one that is open

    @contextmanager
    def span(self, name: str) -> Generator[None]:
        """Time a block; spans inside others are not counted twice."""
        outer, self._inner = self._inner, 0.0
        start = time.perf_counter()
        try:
            yield
            self._settle()
        finally:
            whole = time.perf_counter() - start
            self._seconds[name] = self._seconds.get(name, 0.0) + whole - self._inner
            self._inner = outer + whole

    def each(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Hand items on, timing how long each takes to come."""
        iterator = iter(items)
        while True:
            with self.span(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def read(self) -> dict[str, float]:
        """Seconds by name since the last reading."""
        seconds, self._seconds = self._seconds, {}
        return seconds

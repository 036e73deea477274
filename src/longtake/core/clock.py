"""Measurement of wall time in named spans."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Stopwatch:
    """Accumulates seconds by name until they are read."""

    def __init__(self, settle: Callable[[], None] = lambda: None) -> None:
        """Start with no seconds; `settle` blocks until an asynchronous device has finished its queued work."""
        self._settle = settle
        self._seconds: dict[str, float] = {}
        self._inner = 0.0  # seconds of the spans nested in the open one

    @contextmanager
    def span(self, name: str) -> Generator[None]:
        """Time a block under `name`; the time of a nested span counts for the nested span only."""
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
        """Yield the items, timing under `name` how long the iterable takes to produce each."""
        iterator = iter(items)
        while True:
            with self.span(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def read(self) -> dict[str, float]:
        """Return the seconds by name since the last reading, and reset them."""
        seconds, self._seconds = self._seconds, {}
        return seconds

"""Retention: which ended takes and finished videos are kept. The newest are, as far as the limits allow."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from longtake.serve.jobs import Jobs

GB = 10**9
DAY_S = 86400


@dataclass(frozen=True, kw_only=True)
class Item:
    """An ended take, or a finished video."""

    created_at: float  # seconds since 1970
    num_bytes: int  # on disk
    delete: Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Retention:
    """Limits of what is kept; None: no limit."""

    takes: int | None = None  # number of takes and videos
    gb: float | None = None  # their size on disk, in units of 10^9 bytes
    days: float | None = None  # their age

    def outdated(self, items: Iterable[Item], now: float) -> list[Item]:
        """Return the items beyond the limits: the first one that does not fit, newest first, and all older ones."""
        newest_first = sorted(items, key=lambda item: item.created_at, reverse=True)
        num_bytes = 0
        for kept, item in enumerate(newest_first):
            num_bytes += item.num_bytes
            if (
                (self.takes is not None and kept >= self.takes)
                or (self.gb is not None and num_bytes > self.gb * GB)
                or (self.days is not None and now - item.created_at > self.days * DAY_S)
            ):
                return newest_first[kept:]
        return []


def delete_outdated(retention: Retention, jobs: Jobs) -> None:
    """Delete the takes and videos of a server that are beyond the limits."""
    if retention == Retention():  # the disk is not searched if all is kept
        return
    for item in retention.outdated(_items(jobs), time.time()):
        item.delete()


def _items(jobs: Jobs) -> Iterator[Item]:
    for session in jobs.host.sessions():
        if session.live and session.ended is not None:
            num_bytes = _num_bytes(session.folder.rglob("*"))
            yield Item(created_at=session.created_at, num_bytes=num_bytes, delete=partial(jobs.host.forget, session))
    for row in jobs.store.finished_videos():
        num_bytes = _num_bytes(jobs.files(row))
        yield Item(created_at=row.created_at, num_bytes=num_bytes, delete=partial(jobs.delete, row))


def _num_bytes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())

"""Retention: which ended takes and finished videos are kept. The newest are, as far as the limits allow."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from longtake.serve.jobs import Jobs

logger = logging.getLogger("longtake.serve")

GB = 10**9
DAY_S = 86400


@dataclass(frozen=True, kw_only=True)
class Item:
    """An ended take, or a finished video."""

    created_at: float  # seconds since 1970
    num_bytes: int  # on disk
    starred: bool = False
    delete: Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Retention:
    """DeviceLimits of what is kept; None: no limit."""

    takes: int | None = None  # number of takes and videos
    gb: float | None = None  # their size on disk, in units of 10^9 bytes
    days: float | None = None  # their age

    def outdated(self, items: Iterable[Item], now: float) -> list[Item]:
        """Return the items beyond the limits: the first one that does not fit, and all after it.

        Starred items come first, then the others, each newest first.
        """
        in_order = sorted(items, key=lambda item: (item.starred, item.created_at), reverse=True)
        num_bytes = 0
        for kept, item in enumerate(in_order):
            num_bytes += item.num_bytes
            if (
                (self.takes is not None and kept >= self.takes)
                or (self.gb is not None and num_bytes > self.gb * GB)
                or (self.days is not None and now - item.created_at > self.days * DAY_S)
            ):
                return in_order[kept:]
        return []


def delete_outdated(retention: Retention, jobs: Jobs) -> None:
    """Delete the takes and videos of a server that are beyond the limits."""
    if retention == Retention():  # the disk is not searched if all is kept
        return
    for item in retention.outdated(_items(jobs), time.time()):
        try:
            item.delete()
        except Exception:  # one that cannot be deleted must not keep the others
            logger.exception("a take or a video could not be deleted")


def _items(jobs: Jobs) -> Iterator[Item]:
    for session in jobs.host.sessions():
        if session.live and not session.is_open:
            num_bytes = _num_bytes(session.folder.rglob("*"))
            delete = partial(jobs.host.forget, session)
            yield Item(created_at=session.created_at, num_bytes=num_bytes, starred=session.starred, delete=delete)
    for row in jobs.store.finished_videos():
        num_bytes = _num_bytes(jobs.files.all(row))
        yield Item(created_at=row.created_at, num_bytes=num_bytes, delete=partial(jobs.delete, row))


def _num_bytes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())

"""Whose chunk is made next. Knows no torch and no threads.

Live sessions take turns, the one that has waited longest first; jobs fill the time that these leave, and get one chunk
after every `LIVE_CHUNKS_PER_JOB_CHUNK` of live sessions even where these leave none.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar, runtime_checkable

LIVE_CHUNKS_PER_JOB_CHUNK = 4


@runtime_checkable
class Schedulable(Protocol):
    """A session that can make a chunk now."""

    live: bool  # viewers wait for it; else it is a job
    last_made_s: float  # when its last chunk was made
    created_at: float


S = TypeVar("S", bound=Schedulable)


class Scheduler:
    """Chooses among sessions that are ready, and remembers how long jobs have waited."""

    def __init__(self) -> None:
        self._live_in_a_row = 0

    def order(self, ready: Sequence[S]) -> list[S]:
        """The session whose turn it is, then those of its kind in the order of their turns; they may join its step."""
        live = sorted((s for s in ready if s.live), key=lambda s: s.last_made_s)
        jobs = sorted((s for s in ready if not s.live), key=lambda s: s.created_at)
        if jobs and (not live or self._live_in_a_row >= LIVE_CHUNKS_PER_JOB_CHUNK):
            self._live_in_a_row = 0
            return jobs
        self._live_in_a_row += bool(live)
        return live

"""The scheduler: chooses the session whose chunk is generated next. Independent of torch and threads.

Live sessions take turns, the one that has waited longest first; jobs fill the remaining time, and get one chunk after
every `LIVE_CHUNKS_PER_JOB_CHUNK` chunks of live sessions even under full load.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar, runtime_checkable

LIVE_CHUNKS_PER_JOB_CHUNK = 4


@runtime_checkable
class Schedulable(Protocol):
    """A session that can generate a chunk now."""

    live: bool  # True: it has viewers; False: it is a job
    last_made_s: float  # `time.monotonic()` of its last chunk, 0 before the first
    created_at: float


S = TypeVar("S", bound=Schedulable)


class Scheduler:
    """Orders the sessions that are ready; counts the live chunks since the last chunk of a job."""

    def __init__(self) -> None:
        self._live_in_a_row = 0

    def order(self, ready: Sequence[S]) -> list[S]:
        """Return the session whose turn it is, then others of its kind in order of their turns, for the same step."""
        live = sorted((s for s in ready if s.live), key=lambda s: s.last_made_s)
        jobs = sorted((s for s in ready if not s.live), key=lambda s: s.created_at)
        if jobs and (not live or self._live_in_a_row >= LIVE_CHUNKS_PER_JOB_CHUNK):
            self._live_in_a_row = 0
            return jobs
        self._live_in_a_row += bool(live)
        return live

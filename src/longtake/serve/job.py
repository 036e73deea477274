"""A video that is being generated: its session, how far it is, and its frames as they come."""

import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from longtake.serve.messages import ChunkEvent, Frame, events
from longtake.serve.plans import JobPlan
from longtake.serve.session import Session

STREAM_CHECK_S = 0.1


@dataclass(frozen=True)
class Job:
    """A video that is being generated."""

    session: Session
    plan: JobPlan
    stop_listening: Callable[[], None]
    attempt: int = 1
    over: threading.Event = field(default_factory=threading.Event)  # set when no more frames will be logged


def random_seed() -> int:
    """Return a random seed in [0, 2^31), for requests without one."""
    return secrets.randbelow(2**31)


def path_of(session: Session) -> list[ChunkEvent]:
    """The chunks that a video consists of so far."""
    return [] if session.tip is None else list(session.path(session.tip))


def progress_of(job: Job) -> tuple[str, int]:
    """Status and progress in percent, as the API shows them."""
    made = len(path_of(job.session))
    running = made > 0 or job.session.status.state == "running"
    return ("in_progress" if running else "queued"), min(99, 100 * made // job.plan.expected_chunks)


def frames_as_they_come(job: Job, stop: threading.Event) -> Iterator[bytes]:
    """Yield the frames in a session's log, then new ones, until the video is done or `stop` is set."""
    log, news, n = job.session.log, threading.Event(), 0
    stop_listening = log.listen(news.set)
    try:
        while not stop.is_set():
            news.clear()
            over = job.over.is_set()
            while n < len(log):
                record = log.record(n)
                if isinstance(events.validate_json(record.event), Frame):
                    yield record.payload
                n += 1
            if over:
                return
            news.wait(STREAM_CHECK_S)
    finally:
        stop_listening()

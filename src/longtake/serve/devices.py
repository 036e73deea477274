"""Several devices behind one interface: each session runs on the device that was least busy when it was opened.

A session that waits for its first slot moves to another device as soon as that device has a free one.
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from threading import Event, Thread

from longtake.core.shapes import PictureSize
from longtake.core.vocabulary import Vocabulary
from longtake.sample.words import UnknownWord
from longtake.serve.errors import LostError
from longtake.serve.host import DeviceHost, Session
from longtake.serve.messages import Open
from longtake.serve.metrics import Counts
from longtake.serve.processes import ProcessHost
from longtake.serve.worker import HostConfig
from longtake.studio.timeline import Clock

logger = logging.getLogger("longtake.serve")

BALANCE_S = 0.25  # seconds between rounds of load balancing


class Devices:
    """Implements `host.SessionHost` on several devices; each has a host with its own thread, slots and queue."""

    def __init__(self, hosts: Sequence[DeviceHost]) -> None:
        """Combine hosts of the same model, one per device; the first one has the sessions of earlier processes."""
        self.hosts = hosts

    @property
    def model(self) -> str:
        return self.hosts[0].model

    @property
    def fps(self) -> float:
        return self.hosts[0].fps

    @property
    def size(self) -> PictureSize:
        return self.hosts[0].size

    @property
    def clock(self) -> Clock:
        return self.hosts[0].clock

    @property
    def strength(self) -> float:
        return self.hosts[0].strength

    @property
    def vocabulary(self) -> Vocabulary | None:
        return self.hosts[0].vocabulary

    def unknown_words(self, prompt: str) -> tuple[UnknownWord, ...]:
        return self._least_busy().unknown_words(prompt)

    @property
    def stopped(self) -> Sequence[str]:
        """Names of the devices that have stopped."""
        return [host.device for host in self.hosts if not host.is_alive]

    def open(
        self, opening: Open, *, num_chunks: int | None = None, live: bool = True, owner: str | None = None
    ) -> Session:
        return self._least_busy().open(opening, num_chunks=num_chunks, live=live, owner=owner)

    def fork(self, session: Session, after: int | None, opening: Open, *, num_chunks: int) -> Session:
        return self._host_of(session.id).fork(session, after, opening, num_chunks=num_chunks)

    def go_on(self, session: Session, after: int, *, owner: str | None = None) -> Session:
        stays = session.ended is None or session.has_memory()
        host = self._host_of(session.id) if stays else self._least_busy()
        return host.go_on(session, after, owner=owner)

    def session(self, session_id: str) -> Session:
        return self._host_of(session_id).session(session_id)

    def sessions(self) -> Iterator[Session]:
        found = {session.id: session for host in self.hosts for session in host.sessions()}
        yield from sorted(found.values(), key=lambda s: -s.created_at)

    def forget(self, session: Session) -> None:
        self._host_of(session.id).forget(session)

    def _least_busy(self) -> DeviceHost:
        alive = [host for host in self.hosts if host.is_alive]
        if not alive:
            raise LostError("no device makes anything any more; start the server again")
        return min(alive, key=lambda host: host.load())

    def _host_of(self, session_id: str) -> DeviceHost:
        """The host that has a session; the first host if none has it, to raise NotFoundError."""
        return next((host for host in self.hosts if host.has(session_id)), self.hosts[0])


@contextmanager
def open_devices(configs: Sequence[HostConfig], metrics: Counts) -> Iterator[Devices]:
    """Open the hosts: a single device uses a thread of this process, several use a worker process each, in parallel.

    Raises:
        LongtakeError: the model cannot be opened on one of them.
    """
    with ExitStack() as stack:
        if len(configs) == 1:
            yield Devices([stack.enter_context(configs[0].open(metrics))])
            return
        with ThreadPoolExecutor(len(configs)) as pool:
            starting = [pool.submit(ProcessHost, config, metrics) for config in configs]
        for one in starting:
            if one.exception() is None:
                stack.callback(one.result().close)
        hosts = [one.result() for one in starting]
        stack.enter_context(_balanced(hosts))
        yield Devices(hosts)


@contextmanager
def _balanced(hosts: Sequence[ProcessHost]) -> Iterator[None]:
    over = Event()

    def run() -> None:
        while not over.wait(BALANCE_S):
            try:
                balance(hosts)
            except Exception:  # the next round tries again
                logger.exception("those who wait could not be divided among the devices")

    thread = Thread(target=run, name="longtake-balance", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def balance(hosts: Sequence[ProcessHost]) -> None:
    """Move waiting sessions to devices with a free slot, the oldest session first."""
    waiting = [(session, host) for host in hosts for session in host.sessions() if session.waits]
    for session, host in sorted(waiting, key=lambda pair: pair[0].created_at):
        free = next((other for other in hosts if other is not host and other.room() > 0), None)
        if free is not None:
            free.take_over(session, host)

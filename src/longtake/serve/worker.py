"""The worker process of a device: the methods it offers by RPC, and the events it sends."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import parent_process
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

from longtake.core.shapes import PictureSize
from longtake.core.vocabulary import Vocabulary
from longtake.sample.words import UnknownWord
from longtake.serve.assets import Assets
from longtake.serve.local import LocalHost
from longtake.serve.messages import Open, Status
from longtake.serve.metrics import Counts
from longtake.serve.recorded import SessionMeta
from longtake.serve.schedule import DeviceLimits
from longtake.serve.viewers import Viewer
from longtake.studio.studio import Studio
from longtake.studio.timeline import Clock

MAX_QUEUED_EVENTS = 4096  # back pressure: generation blocks when the server stops reading
LOG_EVENT, STATUS_EVENT = "log", "status"

WorkerEvent = tuple[str, tuple[Any, ...]]  # name and arguments, of a session's event or of a method of `Counts`


@dataclass(frozen=True, kw_only=True)
class HostConfig:
    """Settings of the host of one device."""

    opener: Callable[..., Studio]  # called as `open_studio` is
    model: str
    device: str | None  # None: the first GPU if there is one
    fp8: bool
    compiled: bool
    folder: Path  # the server's folder
    limits: DeviceLimits
    restore: bool  # whether to load the sessions of earlier processes

    @contextmanager
    def open(self, metrics: Counts) -> Iterator[LocalHost]:
        """Open the model and host sessions on it; warms up first, since the first chunks of a process take longer.

        Raises:
            LongtakeError: the model cannot be opened on the device.
        """
        with self.opener(self.model, device=self.device, fp8=self.fp8, compiled=self.compiled) as studio:
            studio.warm_up(until_full=self.compiled)
            host = LocalHost(
                studio,
                self.folder / "takes",
                Assets(self.folder / "assets", size=studio.size, fps=studio.fps).path_of,
                limits=self.limits,
                metrics=metrics,
                restore=self.restore,
            )
            try:
                yield host
            finally:
                host.close()


@dataclass(frozen=True)
class WorkerInfo:
    """Constant properties of a host."""

    model: str
    fps: float
    size: PictureSize
    clock: Clock
    strength: float
    vocabulary: Vocabulary | None
    device: str
    pid: int


class Worker:
    """The RPC methods of the worker process. Sessions are identified by their ids."""

    def __init__(self) -> None:
        self._events: Queue[WorkerEvent | None] = Queue(MAX_QUEUED_EVENTS)
        self._open = ExitStack()

    def begin(self, config: HostConfig) -> tuple[WorkerInfo, list[SessionMeta]]:
        """Open the model; returns its properties and the sessions of earlier processes."""
        Thread(target=_end_with_parent, daemon=True).start()
        self._host = host = self._open.enter_context(config.open(self))
        about = WorkerInfo(
            host.model, host.fps, host.size, host.clock, host.strength, host.vocabulary, host.device, os.getpid()
        )
        return about, [session.facts for session in host.sessions()]

    def unknown_words(self, prompt: str) -> tuple[UnknownWord, ...]:
        return self._host.unknown_words(prompt)

    def open(self, opening: Open, num_chunks: int | None, live: bool, owner: str | None) -> SessionMeta:
        return self._followed(self._host.open(opening, num_chunks=num_chunks, live=live, owner=owner).id)

    def fork(self, session_id: str, after: int | None, opening: Open, num_chunks: int) -> SessionMeta:
        parent = self._host.session(session_id)
        return self._followed(self._host.fork(parent, after, opening, num_chunks=num_chunks).id)

    def go_on(self, facts: SessionMeta, after: int, owner: str | None) -> SessionMeta:
        return self._followed(self._host.go_on_from(facts, after, owner=owner).id)

    def forget(self, session_id: str) -> None:
        self._host.forget(self._host.session(session_id))

    def release(self, session_id: str) -> bool:
        return self._host.release(session_id)

    def adopt(self, facts: SessionMeta, viewers: Sequence[Viewer]) -> None:
        self._host.adopt(facts, viewers)
        self._followed(facts.id)
        # the status was set before `_followed` registered its listener
        self._events.put((STATUS_EVENT, (facts.id, self.status(facts.id))))

    def ask(self, session_id: str, method: str, *args: object) -> object:
        """Call one of a session's methods."""
        return getattr(self._host.session(session_id), method)(*args)

    def status(self, session_id: str) -> Status:
        return self._host.session(session_id).status

    def load(self) -> int:
        return self._host.load()

    def room(self) -> int:
        return self._host.room()

    def is_alive(self) -> bool:
        return self._host.is_alive

    def events(self) -> list[WorkerEvent | None]:
        """Wait for events and return all that are queued; None closes the stream of events."""
        found = [self._events.get()]
        while True:
            try:
                found.append(self._events.get_nowait())
            except Empty:
                return found

    def close(self) -> None:
        self._open.close()
        self._events.put(None)

    def _followed(self, session_id: str) -> SessionMeta:
        session = self._host.session(session_id)
        session.log.listen(lambda: self._events.put((LOG_EVENT, (session_id,))))
        session.listen(lambda status: self._events.put((STATUS_EVENT, (session_id, status))))
        return session.facts

    # Methods of `Counts`.

    def chunk_made(self, num_frames: int, seconds: float) -> None:
        self._events.put(("chunk_made", (num_frames, seconds)))

    def cue_shown(self, seconds: float) -> None:
        self._events.put(("cue_shown", (seconds,)))

    def frames_dropped(self, num: int) -> None:
        self._events.put(("frames_dropped", (num,)))

    def takes_counted(self, device: str, open_now: int, viewers: int, waiting: int) -> None:
        self._events.put(("takes_counted", (device, open_now, viewers, waiting)))


def _end_with_parent() -> None:
    """End this process, and so release the device, when the server process ends."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)

"""A device in a worker process: it does not share the interpreter lock with the sockets, and its failure is isolated.

The worker generates chunks and writes the logs. This process reads the logs and calls the worker by RPC
(`multiprocessing.managers`, over a local socket that only the two can open). Events of the worker are the results of a
blocking call. When the worker stops, its sessions end as lost.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.managers import BaseManager
from pathlib import Path
from shutil import rmtree
from threading import Lock, RLock, Thread
from typing import Any

from longtake.core.errors import LongtakeError, MediaError
from longtake.core.shapes import PictureSize
from longtake.core.vocabulary import Vocabulary
from longtake.sample.words import UnknownWord
from longtake.serve.errors import LostError, NotFoundError
from longtake.serve.host import Session
from longtake.serve.log import EventLog, LogReader
from longtake.serve.messages import ChunkEvent, Close, Command, Ended, Event, HeadEvent, Open, Status, events
from longtake.serve.metrics import Counts
from longtake.serve.recorded import LOG, Recorded, Register, SessionMeta
from longtake.serve.sessions import INTERNAL_ERROR
from longtake.serve.viewers import Viewer
from longtake.serve.worker import LOG_EVENT, STATUS_EVENT, HostConfig, Worker, WorkerEvent
from longtake.studio.script import Script
from longtake.studio.timeline import Clock

logger = logging.getLogger("longtake.serve")


class _Manager(BaseManager):
    """Starts the worker process and transmits the RPCs."""


_Manager.register("Worker", Worker)


class RemoteSession(Recorded):
    """A session of a worker process, whose log this process reads; implements `host.Session`."""

    def __init__(self, folder: Path, facts: SessionMeta, host: "ProcessHost") -> None:
        super().__init__(folder, facts, LogReader(folder / LOG))
        self._host = host
        self._calling = RLock()  # held during an RPC, so that `_host` does not change meanwhile
        self._lock = Lock()
        self._num_read = 1
        self._branch = 0
        self._listeners: list[Callable[[Status], object]] = []
        self._told: Status | None = None
        self._viewers: set[Viewer] = set()
        self.log.listen(self._read)  # registered before all other listeners
        self._read()

    @property
    def status(self) -> Status:
        if self._ended is not None:
            return Status(state="ended", viewers=0)
        try:
            return self._call("status", self.id)
        except (LostError, NotFoundError):  # the worker has stopped, or the session was deleted
            return Status(state="ended", viewers=0)

    def chunks(self) -> Sequence[ChunkEvent]:
        self._read()
        return super().chunks()

    def path(self, chunk: int) -> Sequence[ChunkEvent]:
        self._read()
        return super().path(chunk)

    def frames(self, chunk: int) -> Sequence[bytes]:
        self._read()
        return super().frames(chunk)

    def _read(self) -> None:
        """Update the tree, the tip and the end from new log entries."""
        with self._lock:
            while self._num_read < len(self.log):
                event = events.validate_json(self.log.record(self._num_read).event)
                if isinstance(event, ChunkEvent):
                    self._tree.add(event)
                    if event.branch == self._branch:  # a chunk of the previous branch may come late
                        self._tip = event.chunk
                elif isinstance(event, HeadEvent):
                    self._branch, self._tip = event.branch, event.chunk
                elif isinstance(event, Ended):
                    self._ended, self.failure = event.why, event.message
                self._num_read += 1

    @property
    def waits(self) -> bool:
        """Whether the session waits for its first slot with only its opening, so that it can change its device."""
        return self._told is not None and self._told.state == "queued" and len(self.log) == 1

    def go_to(self, host: "ProcessHost") -> bool:
        """Move to another worker process; returns False if the session no longer waits or could not be moved.

        If the other process cannot adopt it, the session ends as lost.
        """
        with self._calling:
            try:
                released = self._host.call("release", self.id)
            except LostError:  # its sessions end as lost
                released = False
            if not released:
                return False
            try:
                host.call("adopt", self.facts, list(self._viewers))
            except Exception as error:  # whatever the error, no process has the session now
                logger.exception("a take could not be taken over")
                self.lose(str(error) if isinstance(error, LongtakeError) else INTERNAL_ERROR)
                return False
            self._host = host
            return True

    def tell(self, status: Status) -> None:
        """Store the status and call the listeners."""
        self._told = status
        for listener in list(self._listeners):
            listener(status)

    def lose(self, message: str) -> None:
        """End the session on behalf of a worker process that has stopped."""
        if self._ended is None:
            self._ended, self.failure = "lost", message
            with suppress(MediaError):  # the log cannot be written; the viewers still get the status
                EventLog(self.log.path).append(Ended(why="lost", message=message))
            self.log.look()
            self.tell(Status(state="ended", viewers=0))

    def listen(self, listener: Callable[[Status], object]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def do(self, command: Command, viewer: Viewer | None = None) -> Event:
        return self._ask("do", command, viewer)

    def script(self, chunk: int) -> Script:
        return self._ask("script", chunk)

    def push(self, picture: bytes) -> None:
        self._ask("push", picture)

    def has_memory(self) -> bool:
        try:
            return self._ask("has_memory")
        except (LostError, NotFoundError):
            return False

    def watched(self, viewer: Viewer) -> None:
        with self._calling:
            self._viewers.add(viewer)
            self._notify("watched", viewer)

    def left(self, viewer: Viewer) -> None:
        with self._calling:
            self._viewers.discard(viewer)
            self._notify("left", viewer)

    def _notify(self, method: str, viewer: Viewer) -> None:
        """Call a method that has no effect if the session is gone."""
        with suppress(LostError, NotFoundError):
            self._ask(method, viewer)

    def _ask(self, method: str, *args: object) -> Any:
        return self._call("ask", self.id, method, *args)

    def _call(self, method: str, *args: object) -> Any:
        with self._calling:
            return self._host.call(method, *args)


class ProcessHost:
    """Hosts one device in a worker process; implements `host.DeviceHost`."""

    def __init__(self, config: HostConfig, metrics: Counts) -> None:
        """Start the worker process; returns when its model is open.

        Raises:
            LongtakeError: the model cannot be opened on the device.
        """
        self._folder = config.folder / "takes"
        self._metrics = metrics
        self._sessions = Register[RemoteSession]()
        self._manager = _Manager(ctx=get_context("spawn"))
        self._manager.start()
        self._worker = self._manager.Worker()  # type: ignore[attr-defined]  (registered above)
        self.device = config.device or "the first device"
        try:
            self._about, known = self.call("begin", config)
        except LongtakeError:
            self._manager.shutdown()
            raise
        self.device = self._about.device
        for facts in known:
            self._add(facts)
        self._listener = Thread(target=self._listen, name="longtake-events", daemon=True)
        self._listener.start()

    @property
    def model(self) -> str:
        return self._about.model

    @property
    def fps(self) -> float:
        return self._about.fps

    @property
    def size(self) -> PictureSize:
        return self._about.size

    @property
    def clock(self) -> Clock:
        return self._about.clock

    @property
    def strength(self) -> float:
        return self._about.strength

    @property
    def vocabulary(self) -> Vocabulary | None:
        return self._about.vocabulary

    def unknown_words(self, prompt: str) -> tuple[UnknownWord, ...]:
        return self.call("unknown_words", prompt)

    @property
    def pid(self) -> int:
        """Id of the worker process."""
        return self._about.pid

    @property
    def is_alive(self) -> bool:
        try:
            return self.call("is_alive")
        except LostError:
            return False

    def load(self) -> int:
        return self.call("load")

    def room(self) -> int:
        """As `LocalHost.room`; 0 if the worker process has stopped."""
        try:
            return self.call("room")
        except LostError:
            return 0

    def take_over(self, session: RemoteSession, other: "ProcessHost") -> bool:
        """Take over a waiting session of another host; returns whether it was moved."""
        self._sessions.add(session)  # first, so that the session is registered at every moment
        moved = session.go_to(self)
        (other if moved else self)._sessions.remove(session.id)
        return moved

    def open(
        self, opening: Open, *, num_chunks: int | None = None, live: bool = True, owner: str | None = None
    ) -> RemoteSession:
        return self._add(self.call("open", opening, num_chunks, live, owner))

    def fork(self, session: Session, after: int | None, opening: Open, *, num_chunks: int) -> RemoteSession:
        return self._add(self.call("fork", session.id, after, opening, num_chunks))

    def go_on(self, session: Session, after: int, *, owner: str | None = None) -> RemoteSession:
        return self._add(self.call("go_on", session.facts, after, owner))

    def session(self, session_id: str) -> RemoteSession:
        return self._sessions.named(session_id)

    def sessions(self) -> Iterator[RemoteSession]:
        return reversed(self._sessions.all())

    def forget(self, session: Session) -> None:
        known = self.session(session.id)
        try:
            known.do(Close())
            known.log.look()  # the last entry, before the folder is deleted
            self.call("forget", session.id)
        except (LostError, NotFoundError):
            known.lose("the take was deleted")
            rmtree(session.folder, ignore_errors=True)
        known.tell(Status(state="ended", viewers=0))
        self._sessions.remove(session.id)

    def has(self, session_id: str) -> bool:
        return self._sessions.get(session_id) is not None

    def close(self) -> None:
        """End the worker process. Recorded sessions stay on disk."""
        with suppress(LostError):
            self.call("close")
        self._listener.join()
        self._manager.shutdown()

    def call(self, method: str, *args: object) -> Any:
        """Call a method of the worker.

        Raises:
            LostError: the worker process has stopped.
            LongtakeError: the method's own errors.
        """
        try:
            return self._worker._callmethod(method, args)
        except LongtakeError:
            raise
        except (EOFError, OSError) as error:
            raise LostError(f"the process that works on {self.device} has stopped") from error

    def _add(self, facts: SessionMeta) -> RemoteSession:
        session = RemoteSession(self._folder / facts.folder_name, facts, self)
        self._sessions.add(session)
        session.log.look()  # entries from before the session was registered here
        return session

    def _listen(self) -> None:
        """Dispatch the events of the worker until it closes; if it stops, end its sessions as lost."""
        while True:
            try:
                found: Sequence[WorkerEvent | None] = self.call("events")
            except LostError as error:
                self._metrics.takes_counted(self.device, 0, 0, 0)
                for session in self.sessions():
                    session.lose(str(error))
                return
            for event in found:
                if event is None:
                    return
                try:
                    self._dispatch(*event)
                except Exception:  # an error in one listener must not stop the dispatch
                    logger.exception("an event could not be dispatched")

    def _dispatch(self, name: str, args: tuple[Any, ...]) -> None:
        if name not in (LOG_EVENT, STATUS_EVENT):
            getattr(self._metrics, name)(*args)
        elif (session := self._sessions.get(args[0])) is not None:
            if name == LOG_EVENT:
                session.log.look()
            else:
                session.tell(args[1])

"""A session as the server has it: its log, its viewers, and the worker that makes it, which may change.

The class is the same whether the session is made in this process, on another machine, or has ended. What the worker
sends is in the log, or it never was: a worker that is lost is followed by another one, which goes on after the last
chunk of the log, and commands that no entry answers are given to it again.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Condition, RLock

from torch import Tensor

from longtake.core.errors import InputError, MediaError
from longtake.serve.errors import CANNOT_STORE, BusyError, LostError
from longtake.serve.handover import Entries, Handover, LatentsFile, WaitingCue
from longtake.serve.log import EventLog, json_of
from longtake.serve.messages import (
    AcceptedCue,
    Applied,
    Cancelled,
    ChunkEvent,
    Close,
    Command,
    Done,
    Ended,
    Event,
    Frame,
    HeadEvent,
    Numbered,
    Pause,
    Resume,
    SeenCommand,
    Status,
    events,
)
from longtake.serve.recorded import EndReason, Recorded, SessionMeta, repair
from longtake.serve.viewers import Viewer
from longtake.serve.workers import WorkerClient
from longtake.studio.script import ScriptCue

PATIENCE_S = 60.0  # a command waits so long for a session that moves to another worker
MAX_LOSSES = 3  # workers that a session may lose without a chunk in between: it may be what kills them

logger = logging.getLogger("longtake.serve")


class Session(Recorded):
    """A tree of chunks that is being generated, and its event log. Safe to use from any thread."""

    def __init__(self, folder: Path, facts: SessionMeta, log: EventLog) -> None:
        """Read the log of a new session, or of one of an earlier process, of which an incomplete chunk is cut off.

        Raises:
            LookupError: the log is empty.
        """
        super().__init__(folder, facts, log)
        self._log = log
        self.wake: Callable[[], None] = lambda: None  # set by the host; places a dormant session on a worker
        self.worker: WorkerClient | None = None  # None: it has ended, is dormant, or moves
        self.dormant = False  # session of an earlier process, which goes on when somebody watches or directs it
        self.losses = 0
        self._settled = False  # whether the worker has it
        self._lock = RLock()  # held while news come in, and never while a worker is called
        self._moved = Condition(self._lock)
        self._calling = RLock()  # held while the viewers are told to the worker
        self._viewers: set[Viewer] = set()
        self._listeners: list[Callable[[Status], object]] = []
        self._status = Status(state="idle", viewers=0)
        self._latents = LatentsFile(folder)
        self._branches: list[int | None] = [None]
        self._cues: list[WaitingCue] = []
        self._paused = False
        with self._lock:
            for event in repair(log):
                self._apply(event)

    # State.

    @property
    def status(self) -> Status:
        return self._status

    def listen(self, listener: Callable[[Status], object]) -> Callable[[], None]:
        """Register a callback for status changes, run by any thread; returns a function that unregisters it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    @property
    def is_open(self) -> bool:
        """Whether it is being made, or will be without being asked again."""
        return self._ended is None and not self.dormant

    @property
    def waits(self) -> bool:
        """Whether it waits for its first slot with only its opening."""
        return self._status.state == "queued" and len(self.log) == 1

    def has_memory(self) -> bool:
        """Whether another take can continue from the chunks without a rebuild."""
        worker = self.worker
        try:
            return worker is not None and worker.has_memory(self.id)
        except LostError:
            return False

    def handover(self, parent: tuple[str, int] | None = None, *, moves: bool = False) -> Handover:
        """The session, for a worker that begins it, or that goes on with it because it `moves`; see `Handover`.

        A video's memory is computed from all its latents: nobody waits, and the file is that of one that never moved.
        """
        with self._lock:
            chunks = self._tree.all()
            tips = {event.branch: event.chunk for event in chunks}
            scripts = [self.full_script(b, tips.get(b, after)) for b, after in enumerate(self._branches)]
            latents = self.latents()
            return Handover(
                facts=self.facts,
                opened=self.opened,
                next_n=len(self.log),
                chunks=chunks,
                branches=list(self._branches),
                scripts=scripts,
                latents=latents if all(event.chunk in latents for event in chunks) else None,
                cues=list(self._cues),
                paused=self._paused,
                rebuild=moves and self.live,
                parent=parent,
            )

    def share(self, other: "Session", chunk: int, cue: ScriptCue | None) -> None:
        """Copy another session's chunks up to `chunk` into this session, which has none.

        Args:
            other: the other session.
            chunk: its last chunk to share.
            cue: a cue that this session adds at the next chunk.

        Raises:
            InputError: there is no such chunk, or the other take follows a source.
            ConflictError: the chunk is being encoded.
        """
        script, latents = other.script(chunk), other.latents() if other.has_memory() else {}
        if cue is not None:
            script = script.model_copy(update={"cues": [*script.cues, cue]})
        script.save(self._script_path(0))
        for event in other.path(chunk):
            own = event.model_copy(
                update={"chunk": len(self._tree), "parent": self._tip, "branch": 0, "cues": [], "n": len(self.log)}
            )
            if event.chunk in latents:
                self._latents.append({own.chunk: latents[event.chunk]})
            self._apply(self._log.append(own))
            for k, data in enumerate(other.frames(event.chunk)):
                self._log.append(Frame(chunk=own.chunk, k=k, frame=own.start_frame + k), data)

    def latents(self) -> Mapping[int, Tensor]:
        """The latents of its chunks, as far as they are kept."""
        with self._lock:
            return self._latents.read()

    # News of the worker.

    def receive(self, entries: Entries) -> None:
        """Append entries to the log, and keep what came with them.

        Raises:
            MediaError: they cannot be stored; the session has ended.
        """
        with self._lock:
            over = self._ended is not None
            if over and entries.records[0].n != len(self._log):  # ended here, not by the worker
                return
            try:
                if not over:
                    self._latents.append(entries.latents)
                for branch, script in entries.scripts.items():
                    script.save(self._script_path(branch))
                self._log.extend(entries.records)
            except MediaError:
                self.end("failed", CANNOT_STORE)
                raise
            for record in entries.records:
                if not record.payload:
                    self._apply(events.validate_json(record.event))
            self._moved.notify_all()
        self._log.tell()

    def tell(self, status: Status) -> None:
        """Store the status and call the listeners."""
        with self._lock:
            if self._ended is not None and status.state != "ended":
                return
            self._status = status
        for listener in list(self._listeners):
            listener(status)

    def end(self, why: EndReason, message: str | None, event_id: str | None = None) -> Ended:
        """End a session that no worker ends."""
        with self._lock:
            ended = Ended(event_id=event_id, why=why, message=message)
            if self._ended is None:
                with suppress(MediaError):  # the viewers still get the status
                    ended = self._log.append(ended)
                self._concluded(why, message)
        self.tell(Status(state="ended", viewers=0))
        return ended

    def assign(self, worker: WorkerClient | None) -> None:
        """Set the worker whose news count from now on; None: the session moves. Commands wait for `settle`."""
        with self._lock:
            self.worker = worker
            self.dormant = self._settled = False
            self._moved.notify_all()

    def settle(self) -> None:
        """Let the worker have commands: it has begun the session, or gone on with it."""
        with self._lock:
            self._settled = True
            self._moved.notify_all()
        self.tell_viewers()

    def tell_viewers(self) -> None:
        """Tell a new worker who watches."""
        with self._calling:
            for viewer in list(self._viewers):
                self._notify("watched", viewer)

    def wait_for_entries(self, num: int, worker: WorkerClient) -> None:
        """Wait until the log has `num` entries of a worker, or the worker makes the session no more."""
        with self._moved:
            self._moved.wait_for(lambda: len(self.log) >= num or self.worker is not worker, PATIENCE_S)

    # Viewers and commands.

    def watched(self, viewer: Viewer) -> None:
        """Register a viewer."""
        with self._calling:
            self._viewers.add(viewer)
            if self.dormant and self._ended is None:
                self.wake()
            else:
                self._notify("watched", viewer)

    def left(self, viewer: Viewer) -> None:
        """Unregister a viewer."""
        with self._calling:
            self._viewers.discard(viewer)
            self._notify("left", viewer)

    def _notify(self, what: str, viewer: Viewer) -> None:
        worker = self.worker
        if worker is not None:
            with suppress(LostError):  # the next worker is told by `tell_viewers`
                (worker.watched if what == "watched" else worker.left)(self.id, viewer)

    def push(self, picture: bytes) -> None:
        """Add a picture, the bytes of an image file, to the live source.

        Raises:
            LongtakeError: the session has no live source, or the picture cannot be used.
        """
        worker = self.worker
        if worker is None:
            raise InputError("the session has ended; begin another one")
        worker.push(self.id, picture)

    def do(self, command: Command, viewer: Viewer | None = None) -> Event:
        """Execute a command and return the resulting event; `viewer` is None for plain HTTP requests.

        Raises:
            LongtakeError: the command is refused; nothing has changed.
            BusyError: the session moves to another worker, and none has taken it over for a minute.
        """
        while True:
            if self._ended is not None or (self.dormant and isinstance(command, Close | SeenCommand)):
                return self._answered(command)
            worker = self._placed()
            if worker is None:
                continue
            try:
                event = worker.do(self.id, command, viewer)
            except LostError:
                self._wait_until_moved(worker)
                continue
            if isinstance(event, Numbered):
                self.wait_for_entries(event.n + 1, worker)
                if len(self.log) <= event.n or self.log.record(event.n).event != json_of(event):
                    continue  # the entry was lost with its worker
            if isinstance(command, Pause | Resume):
                self._paused = isinstance(command, Pause)
            return event

    def _answered(self, command: Command) -> Event:
        """Answer a command to a session that has no worker."""
        match command:
            case SeenCommand():
                _ = self._tree[command.chunk]
                return Done(event_id=command.event_id)
            case Close() if self._ended is None:
                return self.end("closed", None, command.event_id)
            case Close():
                return Ended(event_id=command.event_id, why=self._ended or "closed", message=self.failure)
            case _:
                raise InputError("the session has ended; begin another one")

    def _placed(self) -> WorkerClient | None:
        """The worker that makes the session, once there is one; None: it has ended meanwhile."""
        if self.dormant:
            self.wake()
        with self._moved:
            if not self._moved.wait_for(lambda: self._settled or self._ended is not None, PATIENCE_S):
                raise BusyError("the take waits for a worker that goes on with it; try again later")
            return None if self._ended is not None else self.worker

    def _wait_until_moved(self, worker: WorkerClient) -> None:
        with self._moved:
            if not self._moved.wait_for(lambda: self.worker is not worker or self._ended is not None, PATIENCE_S):
                raise BusyError("the take is being moved to another worker; try again later")

    # The log.

    def _apply(self, event: Event | Numbered) -> None:
        """Update the state from a log entry."""
        match event:
            case ChunkEvent():
                self._tree.add(event)
                self.losses = 0
                if event.branch == len(self._branches) - 1:  # a chunk of the previous branch may come late
                    self._tip = event.chunk
            case HeadEvent():
                self._branches.append(event.chunk)
                self._tip = event.chunk
                self._cues = [replace(cue, due=None) for cue in self._cues]
            case AcceptedCue():
                branch, due = len(self._branches) - 1, event.due_at.index
                self._cues.append(WaitingCue(branch=branch, event_id=event.event_id, due=due))
            case Applied() | Cancelled():
                self._cues[event.cue - 1] = replace(self._cues[event.cue - 1], due=None)
            case Ended():
                self._concluded(event.why, event.message)
            case _:
                pass

    def _concluded(self, why: EndReason, message: str | None) -> None:
        self._ended, self.failure = why, message
        self.dormant = False
        self._latents.remove()
        self._status = Status(state="ended", viewers=0)
        self._moved.notify_all()

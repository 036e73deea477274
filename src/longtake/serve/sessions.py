"""A live session: takes of one studio that share earlier chunks, the event log that records them, and the viewers.

Commands may come from any thread. The host's maker thread generates chunks (`make_chunk`); its writer thread encodes
them and appends them to the log (`publish`), so that the device never waits for video encoding.
"""

import io
import logging
import threading
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image

from longtake.core.cue import CueFields
from longtake.core.errors import InputError, LongtakeError, MediaError
from longtake.core.shapes import Pictures
from longtake.media.live import ChunkEncoder
from longtake.media.targets import reason
from longtake.serve.errors import end_message
from longtake.serve.log import EventLog
from longtake.serve.messages import (
    AcceptedCue,
    Applied,
    Cancel,
    Cancelled,
    ChunkEvent,
    Close,
    Command,
    CueCommand,
    Done,
    Ended,
    Event,
    Frame,
    HeadEvent,
    Keys,
    Pause,
    Point,
    Resume,
    Retake,
    RewindCommand,
    SeenCommand,
    Status,
)
from longtake.serve.recorded import EndReason, Recorded, SessionMeta
from longtake.serve.schedule import QueuePlace
from longtake.serve.viewers import Viewer, Viewers
from longtake.studio.commands import Position
from longtake.studio.controller import Chunk, NoChunk
from longtake.studio.games import GameSource
from longtake.studio.script import Script
from longtake.studio.sources import LiveSource, Source
from longtake.studio.takes import Take

PictureOf = Callable[[str], Path]  # asset id -> path of the file
INTERNAL_ERROR = "internal error; the server's log has the details"

logger = logging.getLogger("longtake.serve")


class SaidCue(NamedTuple):
    """A cue that was accepted."""

    branch: int
    number: int  # id of the cue in that branch's take
    event_id: str | None
    said_s: float  # `time.monotonic()` when it was accepted, or when a rebuild has ended since


@dataclass(frozen=True, kw_only=True)
class Fresh:
    """A chunk that was generated and is not yet in the log."""

    event: ChunkEvent
    pictures: Pictures
    applied: tuple[Applied, ...]
    waited_s: tuple[float, ...]  # seconds that those cues waited for the chunk


class LiveSession(Recorded):
    """A session whose chunks this process generates; implements `host.Session`."""

    def __init__(
        self,
        folder: Path,
        facts: SessionMeta,
        log: EventLog,
        *,
        take: Take | None,
        source: Source | None = None,
        asset: PictureOf,
    ) -> None:
        """Create a session, or restore one that has ended.

        Args:
            folder: the session's own folder.
            facts: how the session was opened.
            log: the event log in `folder`; its first entry is `opened`.
            take: the take of the first branch; None: the session has ended and can only be watched.
            source: the source that the take follows, if any.
            asset: returns the path of an uploaded picture, given its id.

        Raises:
            LookupError: the log is empty.
        """
        super().__init__(folder, facts, log)
        self._log = log
        self.changed: Callable[[], None] = lambda: None  # set by the host; called when `ready` may have changed
        self.place = None if self.live else QueuePlace()  # set by the host; None: it has none yet, or has lost it
        self.last_made_s = 0.0
        self._asset = asset
        self._source = source
        self._encoder: ChunkEncoder | None = None
        self._lock = threading.RLock()
        self._take = take
        self._takes = [take]  # indexed by branch
        self._ended_s: float | None = None
        self._branch = 0
        self._complete = False  # whether the path to the tip has `num_chunks` chunks
        self._verdict: Ended | None = None  # final event, appended after all chunks are in the log
        self._scripted: set[int] = set()  # branches whose script is on disk
        self._past: ChunkEvent | None = None  # last chunk to rebuild before new ones are made
        self._cues: list[SaidCue] = []  # indexed by the cue's number in the protocol, minus 1
        self._paused = False
        self._listeners: list[Callable[[Status], object]] = []
        self._told: Status | None = None
        self._viewers = Viewers(self._tree, lead=self.opened.lead, fps=self.opened.fps)
        if take is None:
            self._read_log()

    # State.

    @property
    def num_dropped(self) -> int:
        """Number of frames that a live source dropped because they arrived too fast."""
        return self._source.num_dropped if isinstance(self._source, LiveSource) else 0

    @property
    def status(self) -> Status:
        with self._lock:
            queued = self.place if self.place is not None and self.place.position > 0 else None
            return Status(
                state=self._state(),
                position=queued and queued.position,
                wait_s=queued and queued.wait_s,
                rebuilt=self._rebuilt(),
                viewers=len(self._viewers),
                dropped=self.num_dropped,
            )

    def _rebuilt(self) -> float | None:
        """Fraction of the past chunks that have been rebuilt, in [0, 1]; None if no rebuild is due."""
        if self._past is None or self._take is None or self._ended is not None:
            return None
        first = self._tree[0].index  # above 0 if the take begins with given pictures
        made = 0 if self._take.head is None else self._take.head.idx + 1 - first
        return round(made / (self._past.index + 1 - first), 2)

    def has_memory(self) -> bool:
        return self._take is not None and self._past is None

    def release_memory(self, after_s: float) -> None:
        """Let go of the memory of a session that ended `after_s` ago; a take can still go on from its script."""
        with self._lock:
            if self._ended_s is not None and time.monotonic() - self._ended_s > after_s:
                self._take, self._takes = None, []

    def _state(  # noqa: PLR0911  (one return per state)
        self,
    ) -> Literal["queued", "rebuilding", "running", "buffered", "paused", "waiting_for_input", "idle", "ended"]:
        if self._ended is not None or self._take is None:
            return "ended"
        if self._paused:
            return "paused"
        if self.live and not self._viewers:
            return "idle"
        if self.place is None or self.place.position > 0:
            return "queued"
        if self._past is not None and self._verdict is None:
            return "rebuilding"
        over = self._complete or self._verdict is not None
        if over or (self.live and self._viewers.far_behind(self._tip)):
            return "buffered"
        return "running" if self._take.controller.ready else "waiting_for_input"

    @property
    def over(self) -> bool:
        return self._ended is not None

    @property
    def layout(self) -> Hashable | None:
        return None if self._take is None else self._take.controller.layout

    @property
    def wants_slot(self) -> bool:
        """Whether the session would use a slot on the device."""
        with self._lock:
            return self._state() in ("queued", "rebuilding", "running", "buffered", "waiting_for_input")

    @property
    def silent(self) -> bool:
        """Whether its viewers have long shown none of the chunks that wait for them."""
        with self._lock:
            return self.live and self._viewers.silent(self._tip)

    @property
    def ready(self) -> bool:
        """Whether a chunk can be generated now."""
        with self._lock:
            return self._state() in ("running", "rebuilding")

    def script(self, chunk: int) -> Script:
        return self.take_after(chunk).script() if self.has_memory() else super().script(chunk)

    def listen(self, listener: Callable[[Status], object]) -> Callable[[], None]:
        """Register a callback, run by the thread that changes the status; returns a function that unregisters it."""
        with self._lock:
            self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def tell(self) -> None:
        """Call the listeners if the status has changed."""
        with self._lock:
            status = self.status
            if status == self._told:
                return
            self._told = status
            listeners = list(self._listeners)
        for listener in listeners:
            listener(status)

    # Viewers and source.

    def watched(self, viewer: Viewer) -> None:
        with self._lock:
            self._viewers.come(viewer, self._tip)
        self._touch()

    def left(self, viewer: Viewer) -> None:
        with self._lock:
            self._viewers.go(viewer)
        self._touch()

    def push(self, picture: bytes) -> None:
        if not isinstance(self._source, LiveSource):
            raise InputError("this session follows no live source; open one with a source of frames")
        try:
            with Image.open(io.BytesIO(picture), formats=("JPEG", "PNG", "WEBP")) as opened:
                if opened.size != (self.opened.width, self.opened.height):
                    raise InputError(f"the picture is {opened.width}x{opened.height}, the model sees {self.size}")
                pixels = torch.from_numpy(np.array(opened.convert("RGB")))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"a picture of a source is a JPEG or PNG file: {reason(error)}") from error
        self._source.push(pixels)
        self._touch()

    # Commands.

    def do(self, command: Command, viewer: Viewer | None = None) -> Event:  # noqa: PLR0911  (one return per command)
        match command:
            case SeenCommand():
                with self._lock:
                    self._viewers.show(viewer, self._tree[command.chunk], self._tip)
                self._touch()
                return Done(event_id=command.event_id)
            case Keys():
                if not isinstance(self._source, GameSource):
                    raise InputError("there is no game in this session; open one with a game as its source")
                self._source.hold(frozenset(command.held))
                return Done(event_id=command.event_id)
            case Pause() | Resume():
                with self._lock:
                    self._running()
                    self._paused = isinstance(command, Pause)
                self._touch()
                return Done(event_id=command.event_id)
            case CueCommand():
                return self._cue(command)
            case Cancel():
                return self._cancel(command)
            case RewindCommand():
                return self._branch_off(Retake(event_id=command.event_id, after=command.to))
            case Retake():
                return self._branch_off(command)
            case Close():
                return self.end("closed", event_id=command.event_id)

    def end(self, why: EndReason, message: str | None = None, event_id: str | None = None) -> Ended:
        """End the session and append `Ended` to the log. A second call changes nothing; it returns the same reason."""
        with self._lock:
            if self._ended is None:
                self._ended, self.failure = why, message
                self._ended_s = time.monotonic()
                self._encoder = None
                if self._take is not None:
                    self._take.controller.stop()
                if isinstance(self._source, LiveSource | GameSource):
                    self._source.close()
                ended = Ended(event_id=event_id, why=why, message=message)
                with suppress(MediaError):  # the disk is full; `ended` and `failure` hold the reason all the same
                    ended = self._log.append(ended)
            else:
                ended = Ended(event_id=event_id, why=self._ended, message=self.failure)
        self._touch()
        return ended

    def _cue(self, command: CueCommand) -> Event:
        image = None if command.image is None else self._asset(command.image)
        with self._lock:  # held throughout, so that the cue is in `_cues` before a chunk can apply it
            values = {name: getattr(command, name) for name in CueFields.model_fields}
            receipt = self._running().cue(**values, at=self._when(command), at_s=command.at_s, image=image)
            self._cues.append(SaidCue(self._branch, receipt.id, command.event_id, time.monotonic()))
            accepted = AcceptedCue(
                event_id=command.event_id,
                cue=len(self._cues),
                words=command.change or command.prompt,
                accepted_at=point(receipt.accepted_at),
                due_at=point(receipt.due_at),
            )
            return self._log.append(accepted)

    def _when(self, cue: CueCommand) -> int | None:
        """Index of the chunk at which a cue is due; None if the cue names none.

        During a rebuild, a cue without chunk and time is due at the first new chunk.

        Raises:
            InputError: the cue is due at a chunk that is being rebuilt.
        """
        if self._past is None:
            return cue.at
        first, end_s = self._past.index + 1, (self._past.start_frame + self._past.num_frames) / self.opened.fps
        if (cue.at is not None and cue.at < first) or (cue.at_s is not None and cue.at_s < end_s):
            raise InputError(f"the take is made again up to {end_s:g} s; a cue is for chunk {first} or later")
        return first if cue.at is None and cue.at_s is None else cue.at

    def _cancel(self, command: Cancel) -> Event:
        with self._lock:
            take = self._running()
            if command.cue > len(self._cues) or self._cues[command.cue - 1].branch != self._branch:
                raise InputError(f"cue {command.cue} is not waiting on this branch")
            take.cancel(self._cues[command.cue - 1].number)
            return self._log.append(Cancelled(event_id=command.event_id, cue=command.cue))

    def _branch_off(self, command: Retake) -> Event:
        with self._lock:
            self._running()
            if self._past is not None:
                raise InputError("the take is made again up to where it goes on; go back when that is done")
            after = None if command.after is None else self._tree[command.after]
            take = self._takes[0 if after is None else after.branch]
            assert take is not None
            changed = {
                name: getattr(command, name) for name in command.model_fields_set & CueFields.model_fields.keys()
            }
            other = take.retake(at=0 if after is None else after.index + 1, **changed)
            assert self._take is not None
            self._take.controller.stop()
            self._take = other
            self._takes.append(other)
            self._branch = len(self._takes) - 1
            self._tip = None if after is None else after.chunk
            self._viewers.turn_to(self._tip)
            prompt = command.prompt or other.state.in_force.prompt
            head = HeadEvent(event_id=command.event_id, branch=self._branch, chunk=self._tip, prompt=prompt)
            head = self._log.append(head)
        self._touch()
        return head

    # Generation, called from the host's threads.

    def make_chunk(self) -> Fresh | None:
        """Generate the next chunk; None if it was cancelled, is part of a rebuild, or no more will come."""
        take = self.take
        try:
            made = take.controller.next_chunk()
        except LongtakeError as error:
            logger.exception("session %s fails", self.id)
            self._verdict = Ended(why="failed", message=end_message(error))
            return None
        return self.register(take, made)

    @property
    def take(self) -> Take:
        """The take of the current branch; always there while the session is `ready`."""
        assert self._take is not None
        return self._take

    def register(self, take: Take, made: Chunk | NoChunk) -> Fresh | None:
        """Add a generated chunk to the tree; None if there is none, it is part of a rebuild, or no longer wanted."""
        if made is NoChunk.ENDED:
            self._verdict = Ended(why="source")
        if isinstance(made, NoChunk):
            return None
        with self._lock:
            if take is not self._take or self._ended is not None:
                return None
            return self._registered(take, made)

    def _registered(self, take: Take, made: Chunk) -> Fresh | None:
        node, branch = take.head, self._branch
        assert node is not None
        self.last_made_s = now = time.monotonic()
        if self._past is not None:  # a rebuild: the log has this chunk already
            if node.idx == self._past.index:
                self._past = None
                self._cues = [said._replace(said_s=now) for said in self._cues]  # latency counts from here
            return None
        ours = {(cue.branch, cue.number): i for i, cue in enumerate(self._cues, 1)}
        numbers = [ours[branch, number] for number, _ in node.cues if (branch, number) in ours]
        event = ChunkEvent(
            chunk=len(self._tree),
            parent=self._tip,
            branch=branch,
            index=node.idx,
            start_frame=node.start_frame,
            num_frames=len(made.frames),
            prompt=made.prompt,
            cues=numbers,
            made_at=time.time(),
            threads=node.plan.threads,
            timings={name: round(seconds, 4) for name, seconds in made.timings.items()},
        )
        at = Point(index=node.idx, frame=node.start_frame, t=node.start_frame / take.clock.fps)
        applied = [Applied(event_id=self._cues[i - 1].event_id, cue=i, chunk=event.chunk, at=at) for i in numbers]
        self._tree.add(event)
        self._tip = event.chunk
        self._complete = self.num_chunks is not None and len(self.path(event.chunk)) >= self.num_chunks
        waited_s = tuple(now - self._cues[i - 1].said_s for i in numbers)
        return Fresh(event=event, pictures=made.frames, applied=tuple(applied), waited_s=waited_s)

    def conclude(self) -> None:
        """End the session if generation has stopped for good. Call it after the last chunk is in the log."""
        if self._verdict is not None:
            self.end(self._verdict.why, self._verdict.message)

    def publish(self, fresh: Fresh) -> None:
        """Encode a chunk and append it to the log, each frame as soon as it is encoded."""
        try:
            encoder = self._encoder = self._encoder or ChunkEncoder(self.size, self.opened.fps)
            event = self._write(fresh.event)
            self._keep_script(event)  # before the frames, so that every complete chunk has a script
            for applied in fresh.applied:
                self._log.append(applied)
            for k, data in enumerate(encoder.encode(fresh.pictures)):
                self._write_frame(event, k, data)
        except MediaError as error:
            logger.exception("session %s fails", self.id)
            self.end("failed", end_message(error))
            return
        except Exception:  # an error in one session must not stop the others
            logger.exception("a chunk could not be written")
            self.end("failed", INTERNAL_ERROR)
            return
        if self._complete and event.chunk == self._tip:
            self.end("length")
        if self._ended is not None:
            self._encoder = None  # releases its memory
        self._touch()

    def share(self, other: Recorded, chunk: int | None) -> None:
        """Copy another session's chunks, up to and including `chunk`, into this session's empty log; None: no chunk.

        A take that did not generate them rebuilds them before it continues, to have its key/value cache.
        """
        if chunk is None:
            return
        other.script(chunk).save(self._script_path(0))
        for event in other.path(chunk):
            changes = {"chunk": len(self._tree), "parent": self._tip, "branch": 0, "cues": []}
            fresh = event.model_copy(update=changes)
            self._tree.add(fresh)
            self._write(fresh)
            self._tip = fresh.chunk
            for k, data in enumerate(other.frames(event.chunk)):
                self._write_frame(fresh, k, data)
        if self.take.head is None:
            self._past = self.chunks()[-1]

    def take_after(self, chunk: int | None) -> Take:
        """Return a new take that continues after `chunk`; None: from the beginning.

        Raises:
            InputError: there is no such chunk, or no take can continue from it.
        """
        with self._lock:
            event = None if chunk is None else self._tree[chunk]
            take = self._takes[0 if event is None else event.branch]
        if take is None:
            raise InputError("the session is over; play its script to go on from it")
        return take.retake(at=0 if event is None else event.index + 1)

    # Helpers.

    def _write(self, event: ChunkEvent) -> ChunkEvent:
        """Append a chunk to the log and put its entry number into the tree; its frames follow."""
        written = self._log.append(event)
        self._tree.put(written)
        return written

    def _write_frame(self, event: ChunkEvent, k: int, data: bytes) -> None:
        self._log.append(Frame(chunk=event.chunk, k=k, frame=event.start_frame + k), data)

    def _keep_script(self, event: ChunkEvent) -> None:
        """Save the script of a branch for later processes, whenever it has changed."""
        path = self._script_path(event.branch)
        wanted = event.cues or event.branch not in self._scripted
        if wanted and self._source is None and self.opening.source is None:
            self.script(event.chunk).save(path)
            self._scripted.add(event.branch)

    def _running(self) -> Take:
        if self._ended is not None or self._take is None:
            raise InputError("the session has ended; begin another one")
        return self._take

    def _touch(self) -> None:
        """Notify the host and the listeners of a possible change."""
        self.changed()
        self.tell()

    def _read_log(self) -> None:
        """Restore the state from an earlier process's log; cut incomplete chunks off its end, add a missing `Ended`."""
        good, ended = self._recall()
        if good < len(self.log):
            self._log.cut(good)
        if ended is None or ended.n >= good:
            ended = self._log.append(ended or Ended(why="closed", message="the server was started again"))
        self._ended, self.failure = ended.why, ended.message


def point(place: Position) -> Point:
    """Convert a position in a take to a protocol message."""
    return Point(index=place.chunk, frame=place.frame, t=place.seconds)

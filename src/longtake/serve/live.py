"""A session in the process that makes it: takes of one studio that share earlier chunks, their cues and viewers.

Commands may come from any thread. The worker's maker thread generates chunks (`make_chunk`); its writer thread encodes
them and appends them to the log (`publish`), so that the device never waits for video encoding.
"""

import io
import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image

from longtake.core.cue import CueFields
from longtake.core.errors import InputError, LongtakeError, MediaError
from longtake.core.shapes import PictureSize
from longtake.media.targets import reason
from longtake.serve.errors import INTERNAL_ERROR, end_message
from longtake.serve.handover import Handover, WaitingCue
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
from longtake.serve.publishing import Fresh, Publisher
from longtake.serve.recorded import EndReason
from longtake.serve.resuming import tip_of
from longtake.serve.schedule import QueuePlace
from longtake.serve.tree import ChunkTree
from longtake.serve.viewers import Viewer, Viewers
from longtake.serve.writer import SessionWriter
from longtake.studio.commands import Position
from longtake.studio.controller import Chunk, NoChunk
from longtake.studio.games import GameSource
from longtake.studio.sources import LiveSource, Source
from longtake.studio.takes import Take

PictureOf = Callable[[str], Path]  # asset id -> path of the file

logger = logging.getLogger("longtake.serve")


class SaidCue(NamedTuple):
    """A cue that was accepted."""

    branch: int
    number: int  # id of the cue in that branch's take; 0: it waits no more
    event_id: str | None
    said_s: float  # `time.monotonic()` when it was accepted, or when a rebuild has ended since


class LiveSession:
    """A session whose chunks this process generates; implements `schedule.Schedulable`."""

    def __init__(
        self,
        handover: Handover,
        writer: SessionWriter,
        takes: Sequence[Take | None],
        *,
        source: Source | None,
        asset: PictureOf,
        tell: Callable[[Status], None],
    ) -> None:
        """Begin a session, or go on with one.

        Args:
            handover: the session so far.
            writer: writes its log.
            takes: its takes by branch; the last one goes on.
            source: the source that the take follows, if any.
            asset: returns the path of an uploaded picture, given its id.
            tell: called with each new status.
        """
        take = takes[-1]
        assert take is not None
        self.id = handover.facts.id
        self.live = handover.facts.live
        self.created_at = handover.facts.created_at
        self.opened = handover.opened
        self.size = PictureSize(height=self.opened.height, width=self.opened.width)
        self.changed: Callable[[], None] = lambda: None  # set by the worker; called when `ready` may have changed
        self.place = None if self.live else QueuePlace()  # set by the worker; None: it has none yet, or has lost it
        self.last_made_s = 0.0
        self.ended: EndReason | None = None
        self.failure: str | None = None
        self._num_chunks = handover.facts.num_chunks
        self._writer = writer
        self._publisher = Publisher(writer, self.size, self.opened.fps)
        self._tell = tell
        self._asset = asset
        self._source = source
        self._follows = self.opened.source is not None  # then there is no script
        self._lock = threading.RLock()
        self._tree = ChunkTree(handover.chunks)
        self._tip = tip_of(handover)
        self._take: Take | None = take
        self._takes = list(takes)  # indexed by branch
        self._branch = len(takes) - 1
        self._ended_s: float | None = None
        self._complete = False  # whether the path to the tip has `num_chunks` chunks
        self._verdict: Ended | None = None  # final event, appended after all chunks are in the log
        self._scripted: set[int] = set()  # branches whose script is kept as it is
        # last chunk to make again, before new ones are made
        self._past = None if take.head is not None or self._tip is None else self._tree[self._tip]
        self._cues = _said(handover.cues, take)  # indexed by the cue's number in the protocol, minus 1
        self._paused = handover.paused
        self._told: Status | None = None
        self._viewers = Viewers(self._tree, lead=self.opened.lead, fps=self.opened.fps)

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
        """Fraction of the past chunks that have been made again, in [0, 1]; None if none has to be."""
        if self._past is None or self._take is None or self.ended is not None:
            return None
        first = self._tree[0].index  # above 0 if the take begins with given pictures
        made = 0 if self._take.head is None else self._take.head.idx + 1 - first
        return round(made / (self._past.index + 1 - first), 2)

    def has_memory(self) -> bool:
        """Whether another take can continue from the chunks at once."""
        return self._take is not None and self._past is None

    def release_memory(self, after_s: float) -> None:
        """Let go of the memory of a session that ended `after_s` ago; a take can still go on from its script."""
        with self._lock:
            if self.ended_longer_than(after_s):
                self._take, self._takes = None, []

    def ended_longer_than(self, seconds: float) -> bool:
        """Whether it ended so long ago."""
        return self._ended_s is not None and time.monotonic() - self._ended_s > seconds

    def _state(  # noqa: PLR0911  (one return per state)
        self,
    ) -> Literal["queued", "rebuilding", "running", "buffered", "paused", "waiting_for_input", "idle", "ended"]:
        if self.ended is not None or self._take is None:
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
        return self.ended is not None

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

    @property
    def num_viewers(self) -> int:
        """Number of connections that watch."""
        return len(self._viewers)

    def tell(self) -> None:
        """Tell the status if it has changed; under the lock, so that an older one never follows a newer one."""
        with self._lock:
            status = self.status
            if status != self._told:
                self._told = status
                self._tell(status)

    # Viewers and source.

    def watched(self, viewer: Viewer) -> None:
        """Add a viewer."""
        with self._lock:
            self._viewers.come(viewer, self._tip)
        self._touch()

    def left(self, viewer: Viewer) -> None:
        """Remove a viewer."""
        with self._lock:
            self._viewers.go(viewer)
        self._touch()

    def push(self, picture: bytes) -> None:
        """Add a picture, the bytes of an image file, to the live source.

        Raises:
            InputError: the session has no live source, or the picture cannot be used.
        """
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
        """Execute a command and return the resulting event; `viewer` is None for plain HTTP requests.

        Raises:
            LongtakeError: the command is refused; nothing has changed.
        """
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
            if self.ended is None:
                self._stop()
                self.ended, self.failure = why, message
                ended = Ended(event_id=event_id, why=why, message=message)
                with suppress(MediaError):  # the disk is full; the server knows the reason all the same
                    ended = self._writer.append(ended)
            else:
                ended = Ended(event_id=event_id, why=self.ended, message=self.failure)
        self._touch()
        return ended

    def surrender(self) -> int:
        """Stop the session, which another worker goes on with; returns the number of entries of its log."""
        with self._lock:
            self._stop()
            self.ended = "lost"
            return self._writer.close()

    def _stop(self) -> None:
        self._ended_s = time.monotonic()
        if self._take is not None:
            self._take.controller.stop()
        if isinstance(self._source, LiveSource | GameSource):
            self._source.close()

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
            self._keep_script(self._branch)
            return self._writer.append(accepted)

    def _when(self, cue: CueCommand) -> int | None:
        """Index of the chunk at which a cue is due; None if the cue names none.

        While the past is made again, a cue without chunk and time is due at the first new chunk.

        Raises:
            InputError: the cue is due at a chunk that is being made again.
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
            self._keep_script(self._branch)
            return self._writer.append(Cancelled(event_id=command.event_id, cue=command.cue))

    def _branch_off(self, command: Retake) -> Event:
        with self._lock:
            self._running()
            if self._past is not None:
                raise InputError("the take is made again up to where it goes on; go back when that is done")
            after = None if command.after is None else self._tree[command.after]
            take = self._takes[0 if after is None else after.branch]
            if take is None:
                raise InputError("that branch was left before the take moved here; open a take that goes on from it")
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
            self._keep_script(self._branch)
            head = HeadEvent(event_id=command.event_id, branch=self._branch, chunk=self._tip, prompt=prompt)
            head = self._writer.append(head)
        self._touch()
        return head

    # Generation, called from the worker's threads.

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
            if take is not self._take or self.ended is not None:
                return None
            return self._registered(take, made)

    def _registered(self, take: Take, made: Chunk) -> Fresh | None:
        node, branch = take.head, self._branch
        assert node is not None
        self.last_made_s = now = time.monotonic()
        latent = None if self._follows else take.latents()
        if self._past is not None:  # a rebuild: the log has this chunk already
            if latent is not None:
                again = next(event for event in self._tree.path(self._past.chunk) if event.index == node.idx)
                self._writer.keep_latents(again.chunk, latent)
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
        self._complete = self._num_chunks is not None and len(self._tree.path(event.chunk)) >= self._num_chunks
        waited_s = tuple(now - self._cues[i - 1].said_s for i in numbers)
        return Fresh(event=event, pictures=made.frames, applied=tuple(applied), waited_s=waited_s, latent=latent)

    def conclude(self) -> None:
        """End the session if generation has stopped for good. Call it after the last chunk is in the log."""
        if self._verdict is not None:
            self.end(self._verdict.why, self._verdict.message)

    def publish(self, fresh: Fresh) -> None:
        """Encode a chunk and append it to the log."""
        event = fresh.event
        try:
            with self._lock:  # before the frames, so that every complete chunk has a script
                if event.cues or event.branch not in self._scripted:
                    self._keep_script(event.branch)
                    self._scripted.add(event.branch)
            self._publisher.publish(fresh)
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
        if self.ended is not None:
            self._publisher.release()
        self._touch()

    def take_after(self, chunk: int) -> Take:
        """Return a new take that continues after `chunk`.

        Raises:
            InputError: there is no such chunk, or no take can continue from it.
        """
        with self._lock:
            event = self._tree[chunk]
            take = self._takes[event.branch] if self._takes else None
        if take is None:
            raise InputError("the session is over; play its script to go on from it")
        return take.retake(at=event.index + 1)

    # Helpers.

    def _keep_script(self, branch: int) -> None:
        """Keep the script of a branch, with the cues that wait."""
        take = self._takes[branch] if self._takes else None
        if take is not None and not self._follows:
            self._writer.keep_script(branch, take.full_script())

    def _running(self) -> Take:
        if self.ended is not None or self._take is None:
            raise InputError("the session has ended; begin another one")
        return self._take

    def _touch(self) -> None:
        """Notify the worker and the server of a possible change."""
        self.changed()
        self.tell()


def _said(cues: Sequence[WaitingCue], take: Take) -> list[SaidCue]:
    """Cues of a session's log, with the numbers that those that wait have in the take.

    Of several cues for a chunk, those of the log were said last: others came with the branch.
    """
    now = time.monotonic()
    left: dict[int, list[int]] = {}
    for pending in take.state.pending:
        left.setdefault(pending.at, []).append(pending.cue_id)
    said = []
    for cue in reversed(cues):
        waiting = left.get(cue.due, []) if cue.due is not None else []
        said.append(SaidCue(cue.branch, waiting.pop() if waiting else 0, cue.event_id, now))
    return said[::-1]


def point(place: Position) -> Point:
    """Convert a position in a take to a protocol message."""
    return Point(index=place.chunk, frame=place.frame, t=place.seconds)

"""A session in the process that makes it: takes of one studio that share earlier chunks, their cues and viewers.

Commands may come from any thread. The worker's maker thread generates chunks (`make_chunk`); its writer thread encodes
them and appends them to the log (`publish`), so that the device never waits for video encoding.
"""

import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from longtake.core.errors import InputError, LongtakeError, MediaError
from longtake.core.shapes import PictureSize
from longtake.serve.branches import Branches
from longtake.serve.errors import INTERNAL_ERROR, end_message
from longtake.serve.handover import Handover
from longtake.serve.messages import (
    Cancel,
    Close,
    Command,
    CueCommand,
    Done,
    Ended,
    Event,
    Keys,
    Pause,
    Resume,
    Retake,
    RewindCommand,
    SeenCommand,
    Status,
)
from longtake.serve.opening import source_picture
from longtake.serve.publishing import Fresh, Publisher
from longtake.serve.recorded import EndReason
from longtake.serve.schedule import QueuePlace
from longtake.serve.viewers import Viewer, Viewers
from longtake.serve.writer import SessionWriter
from longtake.studio.controller import Chunk, NoChunk
from longtake.studio.games import GameSource
from longtake.studio.sources import LiveSource, Source
from longtake.studio.takes import Take

PictureOf = Callable[[str], Path]  # asset id -> path of the file

logger = logging.getLogger("longtake.serve")


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
        self._branches = Branches(handover, takes)
        self._ended_s: float | None = None
        self._complete = False  # whether the path to the tip has `num_chunks` chunks
        self._verdict: Ended | None = None  # final event, appended after all chunks are in the log
        self._scripted: set[int] = set()  # branches whose script is kept as it is
        self._paused = handover.paused
        self._told: Status | None = None
        self._viewers = Viewers(self._branches.tree, lead=self.opened.lead, fps=self.opened.fps)

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
                rebuilt=None if self.ended is not None else self._branches.rebuilt(),
                viewers=len(self._viewers),
                dropped=self.num_dropped,
            )

    def has_memory(self) -> bool:
        """Whether another take can continue from the chunks at once."""
        return self._branches.take is not None and self._branches.past is None

    def release_memory(self, after_s: float) -> None:
        """Let go of the memory of a session that ended `after_s` ago; a take can still go on from its script."""
        with self._lock:
            if self.ended_longer_than(after_s):
                self._branches.release()

    def ended_longer_than(self, seconds: float) -> bool:
        """Whether it ended so long ago."""
        return self._ended_s is not None and time.monotonic() - self._ended_s > seconds

    def _state(  # noqa: PLR0911  (one return per state)
        self,
    ) -> Literal["queued", "rebuilding", "running", "buffered", "paused", "waiting_for_input", "idle", "ended"]:
        take = self._branches.take
        if self.ended is not None or take is None:
            return "ended"
        if self._paused:
            return "paused"
        if self.live and not self._viewers:
            return "idle"
        if self.place is None or self.place.position > 0:
            return "queued"
        if self._branches.past is not None and self._verdict is None:
            return "rebuilding"
        over = self._complete or self._verdict is not None
        if over or (self.live and self._viewers.far_behind(self._branches.tip)):
            return "buffered"
        return "running" if take.controller.ready else "waiting_for_input"

    @property
    def over(self) -> bool:
        return self.ended is not None

    @property
    def layout(self) -> Hashable | None:
        take = self._branches.take
        return None if take is None else take.controller.layout

    @property
    def wants_slot(self) -> bool:
        """Whether the session would use a slot on the device."""
        with self._lock:
            return self._state() in ("queued", "rebuilding", "running", "buffered", "waiting_for_input")

    @property
    def silent(self) -> bool:
        """Whether its viewers have long shown none of the chunks that wait for them."""
        with self._lock:
            return self.live and self._viewers.silent(self._branches.tip)

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
            self._viewers.come(viewer, self._branches.tip)
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
        self._source.push(source_picture(picture, self.size))
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
                    self._viewers.show(viewer, self._branches.tree[command.chunk], self._branches.tip)
                self._touch()
                return Done(event_id=command.event_id)
            case Keys():
                if not isinstance(self._source, GameSource):
                    raise InputError("there is no game in this session; open one with a game as its source")
                self._source.hold(frozenset(command.held))
                return Done(event_id=command.event_id)
            case Pause() | Resume():
                with self._lock:
                    self._check_running()
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
        if self._branches.take is not None:
            self._branches.take.controller.stop()
        if isinstance(self._source, LiveSource | GameSource):
            self._source.close()

    def _cue(self, command: CueCommand) -> Event:
        image = None if command.image is None else self._asset(command.image)
        with self._lock:  # held throughout, so that the cue is known before a chunk can apply it
            self._check_running()
            accepted = self._branches.cue(command, image)
            self._keep_script(self._branches.last)
            return self._writer.append(accepted)

    def _cancel(self, command: Cancel) -> Event:
        with self._lock:
            self._check_running()
            cancelled = self._branches.cancel(command.cue, command.event_id)
            self._keep_script(self._branches.last)
            return self._writer.append(cancelled)

    def _branch_off(self, command: Retake) -> Event:
        with self._lock:
            self._check_running()
            head = self._branches.branch_off(command)
            self._viewers.turn_to(head.chunk)
            self._keep_script(head.branch)
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
        assert self._branches.take is not None
        return self._branches.take

    def register(self, take: Take, made: Chunk | NoChunk) -> Fresh | None:
        """Add a generated chunk to the tree; None if there is none, it is part of a rebuild, or no longer wanted."""
        if made is NoChunk.ENDED:
            self._verdict = Ended(why="source")
        if isinstance(made, NoChunk):
            return None
        with self._lock:
            if take is not self._branches.take or self.ended is not None:
                return None
            self.last_made_s = time.monotonic()
            if self._branches.past is not None:  # a rebuild: the log has this chunk already
                chunk = self._branches.made_again()
                if not self._follows:
                    self._writer.keep_latents(chunk, take.latents())
                return None
            fresh = self._branches.add(made)
            path = self._branches.tree.path(fresh.event.chunk)
            self._complete = self._num_chunks is not None and len(path) >= self._num_chunks
            return fresh

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
        if self._complete and event.chunk == self._branches.tip:
            self.end("length")
        if self.ended is not None:
            self._publisher.release()
        self._touch()

    def take_after(self, chunk: int) -> Take:
        """Return a new take that continues after `chunk`. Raises as `Branches.take_after`."""
        with self._lock:
            return self._branches.take_after(chunk)

    # Helpers.

    def _keep_script(self, branch: int) -> None:
        """Keep the script of a branch, with the cues that wait."""
        take = self._branches[branch]
        if take is not None and not self._follows:
            self._writer.keep_script(branch, take.full_script())

    def _check_running(self) -> None:
        if self.ended is not None or self._branches.take is None:
            raise InputError("the session has ended; begin another one")

    def _touch(self) -> None:
        """Notify the worker and the server of a possible change."""
        self.changed()
        self.tell()

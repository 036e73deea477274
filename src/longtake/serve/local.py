"""Sessions whose chunks this process generates: one thread owns the device and schedules the sessions that are ready.

Live sessions take turns, the one that has waited longest first; jobs fill the remaining time, and get one chunk in
every few even under full load. A limited number of live sessions hold a slot; the others wait in a queue, and get the
slots of sessions whose viewers show nothing any more.
"""

import logging
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from shutil import rmtree

import torch

from longtake.core.cue import Settings
from longtake.core.errors import InputError, LongtakeError, MediaError
from longtake.core.shapes import PictureSize
from longtake.core.vocabulary import Vocabulary
from longtake.media.live import ChunkEncoder, codec_name
from longtake.media.targets import Target, reason
from longtake.sample.words import UnknownWord
from longtake.serve.errors import BusyError, end_message
from longtake.serve.host import Session
from longtake.serve.log import EventLog
from longtake.serve.messages import Close, Frames, GameRequest, Open, Opened, VideoRequest
from longtake.serve.metrics import Counts
from longtake.serve.recorded import EXPORTS, FACTS, LOG, Finished, Recorded, Register, SessionMeta
from longtake.serve.schedule import Scheduler
from longtake.serve.sessions import INTERNAL_ERROR, Fresh, LiveSession, PictureOf
from longtake.serve.viewers import Viewer
from longtake.studio.controller import make_chunks
from longtake.studio.games import GameSource
from longtake.studio.sources import LiveSource, Source
from longtake.studio.studio import Studio
from longtake.studio.takes import Take
from longtake.studio.timeline import Clock
from longtake.worlds import game

LEAD = 3  # chunks that may be generated ahead of the viewers
LIVE_LEAD = 1  # lead of a session that follows a camera or a game: every chunk ahead adds latency
MEMORY_S = 600.0  # memory of a take is kept after its end, to go on from it at once
SLOT_GRACE_S = 10.0  # a session keeps its slot for this long while a viewer reloads the page
SHORT_GRACE_S = 0.5  # the same while other sessions wait; older sessions come first in the queue
TYPICAL_TURN_S = 60.0  # initial estimate of the time that a live session holds its slot

logger = logging.getLogger("longtake.serve")


class LocalHost:
    """Generates sessions on one device in this process; implements `host.DeviceHost`."""

    def __init__(
        self,
        studio: Studio,
        folder: Path,
        asset: PictureOf,
        *,
        max_takes: int = 2,
        max_waiting: int = 16,
        max_batch: int = 4,
        metrics: Counts,
        restore: bool = True,
    ) -> None:
        """Start the maker thread.

        Args:
            studio: the model, on whose device chunks are generated.
            folder: folder of the sessions' folders.
            asset: returns the path of an upload, given its id.
            max_takes: number of live sessions that run at the same time.
            max_waiting: number of live sessions that may wait in the queue; more are refused.
            max_batch: number of sessions whose chunks are generated in one step.
            metrics: receives the counts.
            restore: load the sessions of earlier processes; of several hosts on a folder, only one does.
        """
        self.studio = studio
        self.folder = folder
        self.max_takes = max_takes
        self.max_waiting = max_waiting
        self.max_batch = max_batch
        self._device = studio.model.dit.device
        self._asset = asset
        self._metrics = metrics
        black = torch.zeros(1, studio.size.height, studio.size.width, 3, dtype=torch.uint8)
        self._codec = codec_name(next(ChunkEncoder(studio.size, studio.fps).encode(black)))
        self._sessions = Register[LiveSession]()
        self._changed = threading.Condition()
        self._stopping = False
        self._slots: dict[str, float] = {}  # session id -> when it last wanted its slot
        self._began: dict[str, float] = {}  # session id -> when it got its slot
        self._turn_s = TYPICAL_TURN_S
        self._scheduler = Scheduler()
        self._counted = (0, 0, 0)  # open takes, viewers and waiting takes, as last reported
        self._dropped: dict[str, int] = {}  # session id -> dropped frames reported so far
        self._writing: dict[str, Future[None]] = {}
        self._writer = ThreadPoolExecutor(1, "longtake-writer")
        self._maker = threading.Thread(target=self._run, name="longtake-maker", daemon=True)
        if restore:
            self._restore()
        self._maker.start()

    @property
    def model(self) -> str:
        return self.studio.model.name

    @property
    def fps(self) -> float:
        return self.studio.fps

    @property
    def size(self) -> PictureSize:
        return self.studio.size

    @property
    def clock(self) -> Clock:
        return self.studio.clock

    @property
    def strength(self) -> float:
        return self.studio.model.strength

    @property
    def device(self) -> str:
        return str(self._device)

    @property
    def vocabulary(self) -> Vocabulary | None:
        return self.studio.model.vocabulary

    def unknown_words(self, prompt: str) -> tuple[UnknownWord, ...]:
        words = self.studio.model.words
        return () if words is None else words.unknown(prompt)

    def open(
        self, opening: Open, *, num_chunks: int | None = None, live: bool = True, owner: str | None = None
    ) -> LiveSession:
        if live:
            self._check_room()
        take, source = self._begun(opening)
        return self._add(opening, take, source, num_chunks=num_chunks, live=live, owner=owner)

    def fork(self, session: Session, after: int | None, opening: Open, *, num_chunks: int) -> LiveSession:
        parent = self.session(session.id)
        take = parent.take_after(after)
        if after is None:
            take, _ = self._begun(opening)
        else:
            take.cue(prompt=opening.prompt, seed=opening.seed)
        return self._add(opening, take, None, num_chunks=num_chunks, live=False, past=(parent, after))

    def go_on(self, session: Session, after: int, *, owner: str | None = None) -> LiveSession:
        return self.go_on_from(session.facts, after, owner=owner)

    def go_on_from(self, facts: SessionMeta, after: int, *, owner: str | None = None) -> LiveSession:
        """As `go_on`, given a session's facts; also continues a session of another host that has ended."""
        self._check_room()
        parent, folder = self._sessions.get(facts.id), self.folder / facts.folder_name
        if parent is not None and parent.has_memory():
            take, past = parent.take_after(after), parent
        else:
            past = Finished(folder) if parent is None and (folder / FACTS).exists() else self.session(facts.id)
            take = self.studio.replay(past.script(after))
        return self._add(past.opening, take, None, num_chunks=None, live=True, owner=owner, past=(past, after))

    def session(self, session_id: str) -> LiveSession:
        return self._sessions.named(session_id)

    def sessions(self) -> Iterator[LiveSession]:
        return reversed(self._sessions.all())

    def forget(self, session: Session) -> None:
        session.do(Close())
        self._sessions.remove(session.id)
        self._dropped.pop(session.id, None)
        self._writing.pop(session.id, None)
        rmtree(session.folder, ignore_errors=True)

    def has(self, session_id: str) -> bool:
        return self._sessions.get(session_id) is not None

    def release(self, session_id: str) -> bool:
        """Remove a session that waits for its first slot and has only its opening; returns whether it did."""
        with self._changed:  # so that it gets no slot meanwhile
            session = self._sessions.get(session_id)
            if session is None or not session.slot or len(session.log) > 1:
                return False
            self._sessions.remove(session.id)
            return True

    def adopt(self, facts: SessionMeta, viewers: Sequence[Viewer]) -> None:
        """Take over a session that another host has released, with its viewers.

        Raises:
            LongtakeError: as `open`.
        """
        take, source = self._begun(facts.opening)
        folder = self.folder / facts.folder_name
        session = LiveSession(folder, facts, EventLog(folder / LOG), take=take, source=source, asset=self._asset)
        for viewer in viewers:
            session.watched(viewer)
        self._register(session)

    def room(self) -> int:
        """Number of live sessions that would get a slot at once; a negative number -n: n sessions wait."""
        return self.max_takes - self._num_running() - self._num_waiting()

    def load(self) -> int:
        jobs = sum(not s.live and s.ended is None for s in self.sessions())
        return self._num_running() + self._num_waiting() + jobs

    @property
    def is_alive(self) -> bool:
        return self._maker.is_alive()

    def close(self) -> None:
        """Stop generation. Recorded sessions stay on disk."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._maker.join()
        self._writer.shutdown()

    # Opening sessions.

    def _check_room(self) -> None:
        if self.room() <= -self.max_waiting:
            raise BusyError(f"{self.max_takes} takes are running and {self.max_waiting} are waiting; try again later")

    def _begun(self, opening: Open) -> tuple[Take, Source | None]:
        studio = self.studio
        settings = {field.name: getattr(opening, field.name) for field in fields(Settings)}
        given = [name for name in ("image", "clip", "source") if getattr(opening, name) is not None]
        if len(given) > 1:
            raise InputError(f"a take begins with one thing, not with {' and '.join(given)}")
        if opening.image is not None:
            return studio.animate(self._asset(opening.image), opening.prompt, **settings), None
        if opening.clip is not None:
            return studio.extend(self._asset(opening.clip), opening.prompt, **settings), None
        match opening.source:
            case None:
                return studio.take(opening.prompt, **settings), None
            case Frames():
                source: Source = LiveSource(studio.size, capacity=2 * studio.clock.chunk_frames)
            case GameRequest(subject=subject, place=place):
                source = GameSource(game.Game.new(subject, place, studio.size))
            case VideoRequest(asset=asset):
                take = studio.restyle(self._asset(asset), opening.prompt, strength=opening.strength, **settings)
                return take, None
        return studio.restyle(source, opening.prompt, strength=opening.strength, **settings), source

    def _add(
        self,
        opening: Open,
        take: Take,
        source: Source | None,
        *,
        num_chunks: int | None,
        live: bool,
        owner: str | None = None,
        past: tuple[Recorded, int | None] | None = None,
    ) -> LiveSession:
        follows = isinstance(opening.source, Frames | GameRequest)
        opened = Opened(
            model=self.model,
            prompt=opening.prompt,
            seed=opening.seed,
            fps=self.fps,
            width=self.size.width,
            height=self.size.height,
            codec=self._codec,
            lead=LIVE_LEAD if follows else LEAD,
            source=opening.source.kind if opening.source else None,
        )
        facts = SessionMeta(
            id=secrets.token_urlsafe(16), watch_id=secrets.token_urlsafe(16), created_at=time.time(), opening=opening,
            num_chunks=num_chunks, live=live, owner=owner, folder=secrets.token_hex(12),
        )  # fmt: skip
        folder = self.folder / facts.folder_name
        try:
            folder.mkdir(parents=True, mode=0o700)
        except OSError as error:
            raise MediaError(f"cannot keep a take in {self.folder}: {reason(error)}") from error
        try:
            log = EventLog(folder / LOG)
            log.append(opened)
            session = LiveSession(folder, facts, log, take=take, source=source, asset=self._asset)
            if past is not None:
                session.share(*past)
            target = Target(folder / FACTS)
            target.prepare()
            target.growing_path.write_text(facts.model_dump_json(indent=1), "utf-8")
            target.commit(target.growing_path)
        except OSError as error:
            rmtree(folder, ignore_errors=True)
            raise MediaError(f"cannot keep a take in {self.folder}: {reason(error)}") from error
        except LongtakeError:
            rmtree(folder, ignore_errors=True)
            raise
        self._register(session)
        return session

    def _register(self, session: LiveSession) -> None:
        session.changed = self._wake
        self._sessions.add(session)
        self._wake()

    def _restore(self) -> None:
        """Load the sessions of earlier processes, so that they can be watched and exported."""
        for path in sorted(self.folder.glob(f"*/{FACTS}")):
            rmtree(path.parent / EXPORTS, ignore_errors=True)
            try:
                self._register(self._restored(path))
            except (OSError, ValueError, LookupError) as error:
                logger.warning("the take in %s cannot be read any more: %s", path.parent.name, error)

    def _restored(self, path: Path) -> LiveSession:
        """Load an ended session from its folder."""
        facts = SessionMeta.model_validate_json(path.read_bytes())
        return LiveSession(path.parent, facts, EventLog(path.parent / LOG), take=None, asset=self._asset)

    # Generation and scheduling.

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _run(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)  # the current device is set per thread
        while True:
            with self._changed:
                if self._stopping:
                    return
                told = self._give_slots()
                turn = self._next()
                if not turn and not told:
                    self._changed.wait(0.25)
            for session in self._sessions.all():
                session.release_memory(MEMORY_S)
            for session in told:
                session.tell()
            if turn:
                self._make(turn)
            self._count()

    def _make(self, sessions: list[LiveSession]) -> None:
        """Generate a chunk for each session and queue it for the writer thread."""
        try:
            begun_s = time.monotonic()
            for session, fresh in zip(sessions, self._made(sessions), strict=True):
                if fresh is not None:
                    self._metrics.chunk_made(fresh.event.num_frames, time.monotonic() - begun_s)
                    for waited_s in fresh.waited_s:
                        self._metrics.cue_shown(waited_s)
                    if (before := self._writing.pop(session.id, None)) is not None:
                        before.result()
                    self._writing[session.id] = self._writer.submit(session.publish, fresh)
                else:
                    self._writer.submit(session.conclude)
        except Exception as error:  # an error in these sessions must not stop the others
            logger.exception("a chunk could not be made")
            for session in sessions:
                self._writer.submit(
                    session.end, "failed", end_message(error) if isinstance(error, LongtakeError) else INTERNAL_ERROR
                )
        for session in sessions:
            session.tell()

    def _count(self) -> None:
        live = [s for s in self._sessions.all() if s.live and s.ended is None]
        viewers = sum(s.status.viewers for s in live)
        if (counts := (len(live), viewers, self._num_waiting())) != self._counted:
            self._counted = counts
            self._metrics.takes_counted(self.device, *counts)
        for session in live:
            self._metrics.frames_dropped(session.num_dropped - self._dropped.get(session.id, 0))
            self._dropped[session.id] = session.num_dropped

    def _made(self, sessions: list[LiveSession]) -> list[Fresh | None]:
        if len(sessions) == 1:
            return [sessions[0].make_chunk()]
        takes = [session.take for session in sessions]
        chunks = make_chunks([take.controller for take in takes])
        return [session.register(take, chunk) for session, take, chunk in zip(sessions, takes, chunks, strict=True)]

    def _next(self) -> list[LiveSession]:
        """The session whose turn it is, and those whose chunks can be generated in one step with its own."""
        turn = self._scheduler.order([s for s in self._sessions.all() if s.ready])
        if not turn:
            return []
        first, *rest = turn
        layout = first.take.controller.layout if self.max_batch > 1 and rest else None
        if layout is None:
            return [first]
        return [first, *(s for s in rest if s.take.controller.layout == layout)][: self.max_batch]

    def _give_slots(self) -> list[LiveSession]:
        """Give free slots to waiting live sessions, oldest first; returns those whose queue position has changed."""
        now = time.monotonic()
        wanting = [s for s in self._sessions.all() if s.live and s.wants_slot]
        waiting = [s for s in wanting if s.id not in self._slots and not s.silent]
        self._slots |= {s.id: now for s in wanting if s.id in self._slots and not (waiting and s.silent)}
        grace_s = SHORT_GRACE_S if waiting else SLOT_GRACE_S
        for lost in [i for i, wanted in self._slots.items() if now - wanted > grace_s or self._is_over(i)]:
            del self._slots[lost]
            self._turn_s += 0.2 * (now - self._began.pop(lost) - self._turn_s)
            if (session := self._sessions.get(lost)) is not None:
                session.slot = None
        moved = []
        for session in waiting:
            free = self.max_takes - len(self._slots)
            place = 0 if free > 0 else waiting.index(session) + 1 - sum(s.id in self._slots for s in waiting)
            if place == 0:
                self._slots[session.id] = self._began[session.id] = now
            if session.slot != place:
                session.slot, session.wait_s = place, round(place * self._turn_s / self.max_takes, 1)
                moved.append(session)
        return moved

    def _is_over(self, session_id: str) -> bool:
        session = self._sessions.get(session_id)
        return session is None or session.ended is not None

    def _num_running(self) -> int:
        """Number of live sessions that hold a slot and have not ended."""
        with self._changed:
            return sum(not self._is_over(session_id) for session_id in self._slots)

    def _num_waiting(self) -> int:
        """Number of live sessions that wait for a slot, or were just opened and will want one."""
        with self._changed:
            live = [s for s in self._sessions.all() if s.live and s.ended is None and s.id not in self._slots]
            new_s = time.time() - SLOT_GRACE_S
            return sum(
                1 for s in live if (s.wants_slot and not s.silent) or (s.last_made_s == 0 and s.created_at > new_s)
            )

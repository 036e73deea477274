"""Sessions whose chunks this process generates: one thread owns the device and asks the scheduler whose turn it is."""

import logging
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from shutil import rmtree

import torch

from longtake.core.errors import LongtakeError
from longtake.core.shapes import PictureSize
from longtake.core.vocabulary import Vocabulary
from longtake.media.live import ChunkEncoder, codec_name
from longtake.sample.words import UnknownWord
from longtake.serve.errors import end_message
from longtake.serve.host import Session
from longtake.serve.log import EventLog
from longtake.serve.messages import Close, Frames, GameRequest, Open, Opened
from longtake.serve.metrics import Counts
from longtake.serve.opening import begin_take
from longtake.serve.recorded import EXPORTS, FACTS, LOG, Finished, Recorded, Register, SessionMeta, new_folder
from longtake.serve.schedule import LEAD, LIVE_LEAD, DeviceLimits, Scheduler
from longtake.serve.sessions import INTERNAL_ERROR, Fresh, LiveSession, PictureOf
from longtake.serve.viewers import Viewer
from longtake.studio.controller import make_chunks
from longtake.studio.sources import Source
from longtake.studio.studio import Studio
from longtake.studio.takes import Take
from longtake.studio.timeline import Clock

MEMORY_S = 600.0  # memory of a take is kept after its end, to go on from it at once

logger = logging.getLogger("longtake.serve")


class LocalHost:
    """Generates sessions on one device in this process; implements `host.DeviceHost`."""

    def __init__(
        self,
        studio: Studio,
        folder: Path,
        asset: PictureOf,
        *,
        limits: DeviceLimits,
        metrics: Counts,
        restore: bool = True,
    ) -> None:
        """Start the maker thread.

        Args:
            studio: the model, on whose device chunks are generated.
            folder: folder of the sessions' folders.
            asset: returns the path of an upload, given its id.
            limits: how many sessions run, wait and share a step.
            metrics: receives the counts.
            restore: load the sessions of earlier processes; of several hosts on a folder, only one does.
        """
        self.studio = studio
        self.folder = folder
        self._device = studio.model.dit.device
        self._asset = asset
        self._metrics = metrics
        black = torch.zeros(1, studio.size.height, studio.size.width, 3, dtype=torch.uint8)
        self._codec = codec_name(next(ChunkEncoder(studio.size, studio.fps).encode(black)))
        self._sessions = Register[LiveSession]()
        self._changed = threading.Condition()
        self._stopping = False
        self._scheduler = Scheduler(limits)  # used with `_changed` held
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
        take, source = begin_take(self.studio, opening, self._asset)
        return self._add(opening, take, source, num_chunks=num_chunks, live=live, owner=owner)

    def fork(self, session: Session, after: int | None, opening: Open, *, num_chunks: int) -> LiveSession:
        parent = self.session(session.id)
        take = parent.take_after(after)
        if after is None:
            take, _ = begin_take(self.studio, opening, self._asset)
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
            if session is None or session.place is None or session.place.position == 0 or len(session.log) > 1:
                return False
            self._sessions.remove(session.id)
            return True

    def adopt(self, facts: SessionMeta, viewers: Sequence[Viewer]) -> None:
        """Take over a session that another host has released, with its viewers.

        Raises:
            LongtakeError: as `open`.
        """
        take, source = begin_take(self.studio, facts.opening, self._asset)
        folder = self.folder / facts.folder_name
        session = LiveSession(folder, facts, EventLog(folder / LOG), take=take, source=source, asset=self._asset)
        for viewer in viewers:
            session.watched(viewer)
        self._register(session)

    def room(self) -> int:
        """Number of live sessions that would get a slot at once; a negative number -n: n sessions wait."""
        with self._changed:
            return self._scheduler.room(self._sessions.all(), time.monotonic())

    def load(self) -> int:
        with self._changed:
            return self._scheduler.load(self._sessions.all(), time.monotonic())

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
        with self._changed:
            self._scheduler.check_room(self._sessions.all(), time.monotonic())

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
        with new_folder(self.folder, facts) as folder:
            log = EventLog(folder / LOG)
            log.append(opened)
            session = LiveSession(folder, facts, log, take=take, source=source, asset=self._asset)
            if past is not None:
                session.share(*past)
        self._register(session)
        return session

    def _register(self, session: LiveSession) -> None:
        session.changed = self._wake
        with self._changed:
            self._sessions.add(session)
            self._scheduler.arrived(session, time.monotonic())
            self._changed.notify()

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
                told = self._assign_places()
                turn = self._scheduler.turn(self._sessions.all())
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
        with self._changed:
            waiting = self._scheduler.num_waiting(live, time.monotonic())
        if (counts := (len(live), viewers, waiting)) != self._counted:
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

    def _assign_places(self) -> list[LiveSession]:
        """Give slots and positions in the queue; returns the sessions whose place has changed."""
        changed = self._scheduler.assign(self._sessions.all(), time.monotonic())
        moved = [(session, place) for i, place in changed.items() if (session := self._sessions.get(i)) is not None]
        for session, place in moved:
            session.place = place
        return [session for session, _ in moved]

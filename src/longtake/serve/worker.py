"""A worker: one device and the sessions on it. A thread owns the device and asks the scheduler whose turn it is.

A worker runs in the server's process, or as a Ray actor on any machine (`serve/rays.py`). It keeps nothing: log
entries, scripts and latents go to the server as events.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from longtake.core.errors import LongtakeError
from longtake.media.live import ChunkEncoder, codec_name
from longtake.sample.words import UnknownWord
from longtake.serve.errors import INTERNAL_ERROR, LostError, end_message
from longtake.serve.handover import CountNews, Handover, StatusNews, WorkerEvent, WorkerInfo, WorkerLoad
from longtake.serve.live import LiveSession, PictureOf
from longtake.serve.messages import Command, Event
from longtake.serve.publishing import Fresh
from longtake.serve.resuming import takes_of
from longtake.serve.schedule import DeviceLimits, Scheduler
from longtake.serve.viewers import Viewer
from longtake.serve.writer import SessionWriter
from longtake.studio.controller import make_chunks
from longtake.studio.studio import Studio
from longtake.weights.live_loras import LoraChoice

MEMORY_S = 600.0  # memory of a take is kept after its end, to go on from it at once
KEPT_S = 3600.0  # and the session itself, without its memory

logger = logging.getLogger("longtake.serve")


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """Settings of a worker."""

    opener: Callable[..., Studio]  # called as `open_studio` is
    model: str
    device: str | None  # None: the first GPU if there is one
    fp8: bool
    compiled: bool
    loras: Mapping[str, LoraChoice]
    limits: DeviceLimits

    def open(self) -> Studio:
        """Open the model, and make first chunks, since the first ones of a process take longer.

        Raises:
            LongtakeError: the model cannot be opened on the device.
        """
        studio = self.opener(self.model, device=self.device, fp8=self.fp8, compiled=self.compiled, loras=self.loras)
        studio.warm_up(until_full=self.compiled)
        return studio


class Worker:
    """Generates the chunks of sessions; implements `host.WorkerClient`. Methods may be called from any thread."""

    def __init__(
        self,
        studio: Studio,
        name: str,
        asset: PictureOf,
        send: Callable[[WorkerEvent], None],
        *,
        limits: DeviceLimits,
        whole_chunks: bool = False,
    ) -> None:
        """Start the maker thread.

        Args:
            studio: the model, on whose device chunks are generated.
            name: name of the worker.
            asset: returns the path of an upload, given its id.
            send: receives the events; blocks while the server is behind.
            limits: how many sessions run, wait and share a step.
            whole_chunks: whether entries are sent when a chunk is complete, see `SessionWriter`.
        """
        self.studio = studio
        self.name = name
        self._device = studio.model.dit.device
        self._asset = asset
        self._send = send
        self._whole_chunks = whole_chunks
        self.about = self._describe()
        self._sessions: dict[str, LiveSession] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._scheduler = Scheduler(limits)  # used with `_changed` held
        self._counted = (0, 0, 0)  # open takes, viewers and waiting takes, as last reported
        self._dropped: dict[str, int] = {}  # session id -> dropped frames reported so far
        self._writing: dict[str, Future[None]] = {}
        self._writer = ThreadPoolExecutor(1, "longtake-writer")
        self._maker = threading.Thread(target=self._run, name="longtake-maker", daemon=True)
        self._maker.start()

    def _describe(self) -> WorkerInfo:
        studio, model = self.studio, self.studio.model
        black = torch.zeros(1, studio.size.height, studio.size.width, 3, dtype=torch.uint8)
        return WorkerInfo(
            model=model.name,
            fps=studio.fps,
            size=studio.size,
            clock=studio.clock,
            strength=model.strength,
            vocabulary=model.vocabulary,
            loras={} if model.loras is None else model.loras.opening,
            codec=codec_name(next(ChunkEncoder(studio.size, studio.fps).encode(black))),
            device=str(self._device),
            node=socket.gethostname(),
            pid=os.getpid(),
        )

    def unknown_words(self, prompt: str) -> tuple[UnknownWord, ...]:
        words = self.studio.model.words
        return () if words is None else words.unknown(prompt)

    def open(self, handover: Handover) -> None:
        if handover.facts.live:
            with self._changed:
                self._scheduler.check_room(self._all(), time.monotonic())
        self.adopt(handover)

    def adopt(self, handover: Handover) -> None:
        shared = None
        if handover.parent is not None:
            parent, after = self._sessions.get(handover.parent[0]), handover.parent[1]
            shared = parent.take_after(after) if parent is not None and parent.has_memory() else None
        takes, source = takes_of(self.studio, handover, self._asset, shared)
        session_id = handover.facts.id
        session = LiveSession(
            handover,
            SessionWriter(session_id, handover.next_n, self._send, whole_chunks=self._whole_chunks),
            takes,
            source=source,
            asset=self._asset,
            tell=lambda status: self._send(StatusNews(session_id, status)),
        )
        session.changed = self._wake
        with self._changed:
            self._sessions[session_id] = session
            self._scheduler.arrived(session, time.monotonic())
            self._changed.notify()

    def do(self, session_id: str, command: Command, viewer: Viewer | None) -> Event:
        return self._session(session_id).do(command, viewer)

    def push(self, session_id: str, picture: bytes) -> None:
        self._session(session_id).push(picture)

    def watched(self, session_id: str, viewer: Viewer) -> None:
        self._session(session_id).watched(viewer)

    def left(self, session_id: str, viewer: Viewer) -> None:
        self._session(session_id).left(viewer)

    def has_memory(self, session_id: str) -> bool:
        session = self._sessions.get(session_id)
        return session is not None and session.has_memory()

    def surrender(self, session_id: str) -> int:
        num_entries = self._session(session_id).surrender()
        self._drop(session_id)
        return num_entries

    def forget(self, session_id: str) -> None:
        session = self._sessions.get(session_id)
        if session is not None:
            session.surrender()
            self._drop(session_id)

    def load(self) -> WorkerLoad:
        with self._changed:
            now, sessions = time.monotonic(), self._all()
            room, load = self._scheduler.room(sessions, now), self._scheduler.load(sessions, now)
        return WorkerLoad(load, room, self._free_bytes())

    @property
    def is_alive(self) -> bool:
        return self._maker.is_alive()

    def close(self) -> None:
        """Stop generation. The studio stays open."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._maker.join()
        self._writer.shutdown()

    # Helpers.

    def _all(self) -> list[LiveSession]:
        """All sessions, oldest first. Requires `_changed`."""
        return sorted(self._sessions.values(), key=lambda session: session.created_at)

    def _session(self, session_id: str) -> LiveSession:
        session = self._sessions.get(session_id)
        if session is None:
            raise LostError("the take is no longer on this worker")
        return session

    def _drop(self, session_id: str) -> None:
        with self._changed:
            self._sessions.pop(session_id, None)
            self._dropped.pop(session_id, None)
            self._writing.pop(session_id, None)
            self._changed.notify()

    def _free_bytes(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.mem_get_info(self._device)[0]
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

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
                sessions = self._all()
                told = self._assign_places(sessions)
                turn = self._scheduler.turn(sessions)
                if not turn and not told:
                    self._changed.wait(0.25)
            for session in sessions:
                session.release_memory(MEMORY_S)
                if session.ended_longer_than(KEPT_S):
                    self._drop(session.id)
            for session in told:
                session.tell()
            if turn:
                self._make(turn)
            self._count(sessions)

    def _assign_places(self, sessions: list[LiveSession]) -> list[LiveSession]:
        """Give slots and positions in the queue; returns the sessions whose place has changed."""
        changed = self._scheduler.assign(sessions, time.monotonic())
        moved = [(session, changed[session.id]) for session in sessions if session.id in changed]
        for session, place in moved:
            session.place = place
        return [session for session, _ in moved]

    def _make(self, sessions: list[LiveSession]) -> None:
        """Generate a chunk for each session and queue it for the writer thread."""
        try:
            begun_s = time.monotonic()
            for session, fresh in zip(sessions, self._made(sessions), strict=True):
                if fresh is not None:
                    self._count_chunk(fresh, time.monotonic() - begun_s)
                    if (before := self._writing.pop(session.id, None)) is not None:
                        before.result()
                    self._writing[session.id] = self._writer.submit(session.publish, fresh)
                else:
                    self._writer.submit(session.conclude)
        except Exception as error:  # an error in these sessions must not stop the others
            logger.exception("a chunk could not be made")
            why = end_message(error) if isinstance(error, LongtakeError) else INTERNAL_ERROR
            for session in sessions:
                self._writer.submit(session.end, "failed", why)
        for session in sessions:
            session.tell()

    def _made(self, sessions: list[LiveSession]) -> list[Fresh | None]:
        if len(sessions) == 1:
            return [sessions[0].make_chunk()]
        takes = [session.take for session in sessions]
        chunks = make_chunks([take.controller for take in takes])
        return [session.register(take, chunk) for session, take, chunk in zip(sessions, takes, chunks, strict=True)]

    # Counts.

    def _count_chunk(self, fresh: Fresh, seconds: float) -> None:
        self._send(CountNews("chunk_made", (fresh.event.num_frames, seconds)))
        for waited_s in fresh.waited_s:
            self._send(CountNews("cue_shown", (waited_s,)))

    def _count(self, sessions: list[LiveSession]) -> None:
        live = [s for s in sessions if s.live and not s.over]
        with self._changed:
            waiting = self._scheduler.num_waiting(live, time.monotonic())
        if (counts := (len(live), sum(s.num_viewers for s in live), waiting)) != self._counted:
            self._counted = counts
            self._send(CountNews("takes_counted", (self.name, *counts)))
        for session in live:
            before = self._dropped.get(session.id, 0)
            if session.num_dropped != before:
                self._dropped[session.id] = session.num_dropped
                self._send(CountNews("frames_dropped", (session.num_dropped - before,)))

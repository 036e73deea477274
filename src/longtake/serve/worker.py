"""The other process of a device: its side of the calls, and what it tells without being asked."""

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
from longtake.serve.recorded import Facts
from longtake.serve.viewers import Viewer
from longtake.studio.studio import Studio
from longtake.studio.timeline import Clock

MAX_NEWS = 4096  # that wait; the maker of chunks waits when nobody takes them
LOG_NEWS, STATUS_NEWS = "log", "status"

News = tuple[str, tuple[Any, ...]]  # of a session, or the name and arguments of one of `Counts`


@dataclass(frozen=True, kw_only=True)
class HostConfig:
    """What the maker of chunks on a device is told."""

    opener: Callable[..., Studio]  # called as `open_studio` is
    model: str
    device: str | None  # None: the first GPU if there is one
    fp8: bool
    compiled: bool
    folder: Path  # of the server
    max_takes: int
    max_waiting: int
    max_batch: int
    restore: bool  # know the sessions of earlier processes

    @contextmanager
    def open(self, metrics: Counts) -> Iterator[LocalHost]:
        """Open the model; make chunks and forget them, for the first of a process take longer.

        Raises:
            LongtakeError: the model cannot be opened on the device.
        """
        with self.opener(self.model, device=self.device, fp8=self.fp8, compiled=self.compiled) as studio:
            studio.warm_up(until_full=self.compiled)
            host = LocalHost(
                studio,
                self.folder / "takes",
                Assets(self.folder / "assets", size=studio.size, fps=studio.fps).path_of,
                max_takes=self.max_takes,
                max_waiting=self.max_waiting,
                max_batch=self.max_batch,
                metrics=metrics,
                restore=self.restore,
            )
            try:
                yield host
            finally:
                host.close()


@dataclass(frozen=True)
class About:
    """What never changes of a host."""

    model: str
    fps: float
    size: PictureSize
    clock: Clock
    strength: float
    vocabulary: Vocabulary | None
    device: str
    pid: int


class Worker:
    """The other process's side of the calls. Sessions go by their ids."""

    def __init__(self) -> None:
        self._news: Queue[News | None] = Queue(MAX_NEWS)
        self._open = ExitStack()

    def begin(self, config: HostConfig) -> tuple[About, list[Facts]]:
        """Open the model; what is known of it, and of the sessions of earlier processes."""
        Thread(target=_end_with_parent, daemon=True).start()
        self._host = host = self._open.enter_context(config.open(self))
        about = About(
            host.model, host.fps, host.size, host.clock, host.strength, host.vocabulary, host.device, os.getpid()
        )
        return about, [session.facts for session in host.sessions()]

    def unknown_words(self, prompt: str) -> tuple[UnknownWord, ...]:
        return self._host.unknown_words(prompt)

    def open(self, opening: Open, num_chunks: int | None, live: bool, owner: str | None) -> Facts:
        return self._followed(self._host.open(opening, num_chunks=num_chunks, live=live, owner=owner).id)

    def fork(self, session_id: str, after: int | None, opening: Open, num_chunks: int) -> Facts:
        parent = self._host.session(session_id)
        return self._followed(self._host.fork(parent, after, opening, num_chunks=num_chunks).id)

    def go_on(self, session_id: str, after: int, owner: str | None) -> Facts:
        return self._followed(self._host.go_on_from(session_id, after, owner=owner).id)

    def forget(self, session_id: str) -> None:
        self._host.forget(self._host.session(session_id))

    def release(self, session_id: str) -> bool:
        return self._host.release(session_id)

    def adopt(self, facts: Facts, viewers: Sequence[Viewer]) -> None:
        self._host.adopt(facts, viewers)
        self._followed(facts.id)
        self._news.put((STATUS_NEWS, (facts.id, self.status(facts.id))))  # that came before anyone listened

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

    def news(self) -> list[News | None]:
        """Wait until there is something to tell. None: it was the last."""
        found = [self._news.get()]
        while True:
            try:
                found.append(self._news.get_nowait())
            except Empty:
                return found

    def close(self) -> None:
        self._open.close()
        self._news.put(None)

    def _followed(self, session_id: str) -> Facts:
        session = self._host.session(session_id)
        session.log.listen(lambda: self._news.put((LOG_NEWS, (session_id,))))
        session.listen(lambda status: self._news.put((STATUS_NEWS, (session_id, status))))
        return session.facts

    # As `Counts`.

    def chunk_made(self, num_frames: int, seconds: float) -> None:
        self._news.put(("chunk_made", (num_frames, seconds)))

    def cue_shown(self, seconds: float) -> None:
        self._news.put(("cue_shown", (seconds,)))

    def frames_dropped(self, num: int) -> None:
        self._news.put(("frames_dropped", (num,)))

    def takes_counted(self, device: str, open_now: int, viewers: int, waiting: int) -> None:
        self._news.put(("takes_counted", (device, open_now, viewers, waiting)))


def _end_with_parent() -> None:
    """Do not live on, and hold the device, when the server was killed."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)

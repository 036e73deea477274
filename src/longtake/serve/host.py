"""The seam between whoever speaks HTTP and whoever makes chunks: a thread of this process, or a process a device."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from longtake.core.shapes import PictureSize
from longtake.core.vocabulary import Vocabulary
from longtake.sample.words import UnknownWord
from longtake.serve.log import LogReader
from longtake.serve.messages import ChunkEvent, Command, Event, Open, Opened, Status
from longtake.serve.recorded import EndReason
from longtake.serve.viewers import Viewer
from longtake.studio.script import Script
from longtake.studio.timeline import Clock


@runtime_checkable
class Session(Protocol):
    """A tree of chunks in the making, and its log. All of it may be called from any thread."""

    id: str  # for whoever directs
    watch_id: str  # for whoever looks on
    owner: str | None  # id of the key that it was begun with
    created_at: float  # seconds since 1970
    folder: Path
    log: LogReader
    opening: Open
    opened: Opened
    num_chunks: int | None  # at which it ends by itself; None: never
    live: bool  # it waits for viewers, and runs only so far ahead of them

    @property
    def size(self) -> PictureSize: ...

    @property
    def status(self) -> Status: ...

    def listen(self, listener: Callable[[Status], object]) -> Callable[[], None]:
        """Have a function called when the status changes, from any thread; returns how to stop that."""
        ...

    @property
    def tip(self) -> int | None:
        """The chunk after which the next one will be made."""
        ...

    @property
    def ended(self) -> EndReason | None: ...

    @property
    def failure(self) -> str | None:
        """The message of what went wrong."""
        ...

    def do(self, command: Command, viewer: Viewer | None = None) -> Event:
        """Follow a command of a viewer, or of whoever, and say what came of it.

        Raises:
            LongtakeError: it cannot be followed; nothing has changed.
        """
        ...

    def chunks(self) -> Sequence[ChunkEvent]:
        """All chunks of all branches, in the order made."""
        ...

    def path(self, chunk: int) -> Sequence[ChunkEvent]:
        """The chunks from the beginning up to one.

        Raises:
            InputError: there is no such chunk.
        """
        ...

    def frames(self, chunk: int) -> Sequence[bytes]:
        """H.264 (Annex B) of each frame of a finished chunk; the first one is a key frame.

        Raises:
            InputError: there is no such chunk.
            ConflictError: it is not whole yet.
        """
        ...

    def script(self, chunk: int) -> Script:
        """What makes the take up to a chunk again.

        Raises:
            InputError: there is no such chunk, or its source has gone by.
        """
        ...

    def push(self, picture: bytes) -> None:
        """The next picture of a live source, an image file.

        Raises:
            LongtakeError: the session has none, or it cannot be read.
        """
        ...

    def has_memory(self) -> bool:
        """Can another take go on from its chunks without making them again?"""
        ...

    def watched(self, viewer: Viewer) -> None:
        """A viewer came."""
        ...

    def left(self, viewer: Viewer) -> None:
        """A viewer went."""
        ...


@runtime_checkable
class SessionHost(Protocol):
    """Opens sessions and makes their chunks on a device."""

    @property
    def model(self) -> str: ...

    @property
    def fps(self) -> float: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def strength(self) -> float:
        """That suits the model where a source is restyled."""
        ...

    @property
    def size(self) -> PictureSize: ...

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The words that the model was trained on, where that is known."""
        ...

    def unknown_words(self, prompt: str) -> tuple[UnknownWord, ...]:
        """The words of a prompt that are not among them."""
        ...

    def open(
        self, opening: Open, *, num_chunks: int | None = None, live: bool = True, owner: str | None = None
    ) -> Session:
        """Begin a session.

        Args:
            opening: what it begins with.
            num_chunks: at which it ends by itself.
            live: it waits for those who watch, and goes before those that do not.
            owner: id of the key that asks for it.

        Raises:
            LongtakeError: what is asked for cannot be made.
            BusyError: there is no room, and no place in the queue.
        """
        ...

    def fork(self, session: Session, after: int | None, opening: Open, *, num_chunks: int) -> Session:
        """A session of its own that shares another one's chunks up to `after`, and goes on under another opening."""
        ...

    def go_on(self, session: Session, after: int, *, owner: str | None = None) -> Session:
        """A live session that begins with another one's chunks up to `after`, and goes on as that one did.

        Where nothing remembers those chunks any more (the server was started again), they are made again first.

        Raises:
            InputError: there is no such chunk; the other followed a source, or was made with other weights.
            ConflictError: the chunk is being encoded.
            BusyError: there is no room, and no place in the queue.
        """
        ...

    def session(self, session_id: str) -> Session:
        """One by either of its ids.

        Raises:
            NotFoundError: there is none.
        """
        ...

    def sessions(self) -> Iterator[Session]:
        """All of them, the newest first."""
        ...

    def forget(self, session: Session) -> None:
        """End a session and remove its files."""
        ...


@runtime_checkable
class DeviceHost(SessionHost, Protocol):
    """A host on one device."""

    @property
    def device(self) -> str: ...

    @property
    def is_alive(self) -> bool: ...

    def load(self) -> int:
        """Sessions that another one would share the device with."""
        ...

    def has(self, session_id: str) -> bool:
        """Is it one of this host's, by either of its ids?"""
        ...

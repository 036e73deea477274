"""Interface between the HTTP routes and the hosts that generate chunks, in a thread or in one process per device."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from longtake.core.shapes import PictureSize
from longtake.core.vocabulary import Vocabulary
from longtake.sample.words import UnknownWord
from longtake.serve.log import LogReader
from longtake.serve.messages import ChunkEvent, Command, Event, Open, Opened, Status
from longtake.serve.recorded import EndReason, SessionMeta
from longtake.serve.viewers import Viewer
from longtake.studio.script import Script
from longtake.studio.timeline import Clock


@runtime_checkable
class Session(Protocol):
    """A tree of chunks that is being generated, and its event log. Safe to use from any thread."""

    facts: SessionMeta  # description of how it was opened, as stored in its folder
    id: str  # grants the right to direct
    watch_id: str  # grants the right to watch
    owner: str | None  # id of the key that opened the session
    created_at: float  # seconds since 1970
    folder: Path
    log: LogReader
    opening: Open
    opened: Opened
    num_chunks: int | None  # number of chunks after which it ends by itself; None: no limit
    live: bool  # runs only for viewers, at most `opened.lead` chunks ahead of them

    @property
    def size(self) -> PictureSize: ...

    @property
    def status(self) -> Status: ...

    def listen(self, listener: Callable[[Status], object]) -> Callable[[], None]:
        """Register a callback for status changes, run by any thread; returns a function that unregisters it."""
        ...

    @property
    def starred(self) -> bool:
        """Whether the session is deleted only after all others, where only some are kept."""
        ...

    def star(self, *, on: bool) -> None:
        """Star the session, or remove its star."""
        ...

    @property
    def tip(self) -> int | None:
        """Number of the chunk that the next one follows; None at the beginning."""
        ...

    @property
    def ended(self) -> EndReason | None: ...

    @property
    def failure(self) -> str | None:
        """Message about why the session ended, if there is one."""
        ...

    def do(self, command: Command, viewer: Viewer | None = None) -> Event:
        """Execute a command and return the resulting event; `viewer` is None for plain HTTP requests.

        Raises:
            LongtakeError: the command is refused; nothing has changed.
        """
        ...

    def chunks(self) -> Sequence[ChunkEvent]:
        """All chunks of all branches, in order of generation."""
        ...

    def path(self, chunk: int) -> Sequence[ChunkEvent]:
        """The chunks from the beginning up to and including `chunk`.

        Raises:
            InputError: there is no such chunk.
        """
        ...

    def frames(self, chunk: int) -> Sequence[bytes]:
        """H.264 bytes (Annex B) of each frame of a chunk; the first frame is a key frame.

        Raises:
            InputError: there is no such chunk.
            ConflictError: some of its frames are not in the log yet.
        """
        ...

    def script(self, chunk: int) -> Script:
        """The script that reproduces the take up to a chunk.

        Raises:
            InputError: there is no such chunk, or the take follows a source.
        """
        ...

    def push(self, picture: bytes) -> None:
        """Add a picture, the bytes of an image file, to the live source.

        Raises:
            LongtakeError: the session has no live source, or the picture cannot be used.
        """
        ...

    def has_memory(self) -> bool:
        """Whether another take can continue from the chunks without a rebuild."""
        ...

    def watched(self, viewer: Viewer) -> None:
        """Register a viewer."""
        ...

    def left(self, viewer: Viewer) -> None:
        """Unregister a viewer."""
        ...


@runtime_checkable
class SessionHost(Protocol):
    """Opens sessions and generates their chunks on a device."""

    @property
    def model(self) -> str: ...

    @property
    def fps(self) -> float: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def strength(self) -> float:
        """The model's default strength for restyling a source, in (0, 1]."""
        ...

    @property
    def size(self) -> PictureSize: ...

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The words that the model was trained on; None if unknown."""
        ...

    def unknown_words(self, prompt: str) -> tuple[UnknownWord, ...]:
        """The words of a prompt that are not in the vocabulary."""
        ...

    def open(
        self, opening: Open, *, num_chunks: int | None = None, live: bool = True, owner: str | None = None
    ) -> Session:
        """Open a session.

        Args:
            opening: prompt, settings, and the picture, clip or source to begin with.
            num_chunks: number of chunks after which the session ends by itself; None: no limit.
            live: whether it runs for viewers only, and has priority over jobs; False: a job.
            owner: id of the key that opens it.

        Raises:
            LongtakeError: the request cannot be fulfilled.
            BusyError: all slots and all places in the queue are taken.
        """
        ...

    def fork(self, session: Session, after: int | None, opening: Open, *, num_chunks: int) -> Session:
        """Open a job that shares another session's chunks up to `after` and continues under another opening."""
        ...

    def go_on(self, session: Session, after: int, *, owner: str | None = None) -> Session:
        """Open a live session that shares another one's chunks up to `after` and continues as that one did.

        If no process holds the other take any more (after a server restart), the shared chunks are rebuilt first.

        Raises:
            InputError: there is no such chunk; the other session followed a source or was made with other weights.
            ConflictError: the chunk is being encoded.
            BusyError: all slots and all places in the queue are taken.
        """
        ...

    def session(self, session_id: str) -> Session:
        """The session with this id or watch id.

        Raises:
            NotFoundError: there is no such session.
        """
        ...

    def sessions(self) -> Iterator[Session]:
        """All sessions, newest first."""
        ...

    def forget(self, session: Session) -> None:
        """End a session and delete its files."""
        ...


@runtime_checkable
class DeviceHost(SessionHost, Protocol):
    """A host on one device."""

    @property
    def device(self) -> str: ...

    @property
    def is_alive(self) -> bool: ...

    def load(self) -> int:
        """Number of sessions that run or wait on the device."""
        ...

    def has(self, session_id: str) -> bool:
        """Whether this host has a session with this id or watch id."""
        ...

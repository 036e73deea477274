"""A session as recorded in its folder: how it was opened, its event log, and the chunks in the log."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from threading import Lock
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel

from longtake.core.errors import InputError, MediaError
from longtake.core.shapes import PictureSize
from longtake.media.targets import Target, reason
from longtake.serve.errors import ConflictError, NotFoundError
from longtake.serve.log import LogReader
from longtake.serve.messages import ChunkEvent, Ended, Frame, Open, Opened, events
from longtake.serve.tree import ChunkTree
from longtake.studio.script import Script, runs_of

EXPORTS = "exports"  # folder of files that are being sent
FACTS = "session.json"
LOG = "log"
STAR = "starred"  # empty file in the folder of a starred session

EndReason = Literal["closed", "source", "failed", "length", "lost"]


class SessionMeta(BaseModel):
    """How a session was opened; stored in its folder."""

    id: str  # grants the right to direct
    watch_id: str  # grants the right to watch
    created_at: float  # seconds since 1970
    opening: Open
    num_chunks: int | None  # number of chunks after which it ends by itself; None: no limit
    live: bool  # runs only for viewers, at most `opened.lead` chunks ahead of them
    owner: str | None  # id of the key that opened the session
    folder: str = ""  # name of its folder, from which its id cannot be told; empty: the id, in earlier versions

    @property
    def folder_name(self) -> str:
        return self.folder or self.id


@contextmanager
def new_folder(parent: Path, facts: SessionMeta) -> Iterator[Path]:
    """Create the folder of a session; the block fills it, then its facts are stored. An error removes the folder.

    Raises:
        MediaError: the folder cannot be written.
    """
    folder = parent / facts.folder_name
    try:
        folder.mkdir(parents=True, mode=0o700)
        try:
            yield folder
            target = Target(folder / FACTS)
            target.prepare()
            target.growing_path.write_text(facts.model_dump_json(indent=1), "utf-8")
            target.commit(target.growing_path)
        except BaseException:
            rmtree(folder, ignore_errors=True)
            raise
    except OSError as error:
        raise MediaError(f"cannot keep a take in {parent}: {reason(error)}") from error


class Recorded:
    """The part of a `host.Session` that can be read from its folder."""

    def __init__(self, folder: Path, facts: SessionMeta, log: LogReader) -> None:
        """Read the opening from the log.

        Args:
            folder: the session's own folder.
            facts: how the session was opened.
            log: the event log in `folder`; its first entry is `opened`.

        Raises:
            LookupError: the log is empty.
        """
        self.folder = folder
        self.facts = facts
        self.id = facts.id
        self.watch_id = facts.watch_id
        self.owner = facts.owner
        self.created_at = facts.created_at
        self.opening = facts.opening
        self.num_chunks = facts.num_chunks
        self.live = facts.live
        self.log = log
        opened = events.validate_json(log.record(0).event)
        assert isinstance(opened, Opened)
        self.opened = opened
        self.failure: str | None = None
        self._tree = ChunkTree(log)
        self._tip: int | None = None
        self._ended: EndReason | None = None

    @property
    def ended(self) -> EndReason | None:
        return self._ended

    @property
    def tip(self) -> int | None:
        return self._tip

    @property
    def size(self) -> PictureSize:
        return PictureSize(height=self.opened.height, width=self.opened.width)

    @property
    def starred(self) -> bool:
        return (self.folder / STAR).exists()

    def star(self, *, on: bool) -> None:
        """Star the session, or remove its star.

        Raises:
            MediaError: the folder cannot be written.
        """
        try:
            if on:
                (self.folder / STAR).touch()
            else:
                (self.folder / STAR).unlink(missing_ok=True)
        except OSError as error:
            raise MediaError(f"cannot star the take: {reason(error)}") from error

    def chunks(self) -> Sequence[ChunkEvent]:
        return self._tree.all()

    def path(self, chunk: int) -> Sequence[ChunkEvent]:
        return self._tree.path(chunk)

    def frames(self, chunk: int) -> Sequence[bytes]:
        return self._tree.frames(chunk)

    def script(self, chunk: int) -> Script:
        """The script of the chunk's branch in the folder, cut after the chunk; see `host.Session`."""
        event = self._tree[chunk]
        kept = self._script_path(event.branch)
        if not kept.exists():
            raise InputError("the take followed a source, and has no script")
        script = Script.load(kept)
        cues = [cue for cue in script.cues if cue.chunk is not None and cue.chunk <= event.index]
        path = self.path(chunk)
        threads = runs_of([event.threads for event in path])
        return script.model_copy(update={"cues": cues, "chunks": len(path), "threads": threads})

    def _script_path(self, branch: int) -> Path:
        return self.folder / f"branch-{branch}.take.json"

    def _recall(self) -> tuple[int, Ended | None]:
        """Restore the tree from the log; returns the number of valid entries and the last `Ended`, if any.

        Chunks at the end of the log whose frames are incomplete after a crash are left out.
        """
        ended: Ended | None = None
        whole: dict[int, int] = {}
        good = len(self.log)
        for n in range(1, good):
            event = events.validate_json(self.log.record(n).event)
            if isinstance(event, ChunkEvent):
                self._tree.add(event)
            elif isinstance(event, Frame):
                whole[event.chunk] = event.k + 1
            elif isinstance(event, Ended):
                ended = event
        while (known := self._tree.all()) and whole.get(known[-1].chunk, 0) < known[-1].num_frames:
            good = self._tree.drop_last().n
        self._tip = len(self._tree) - 1 if len(self._tree) else None
        return good, ended


class Finished(Recorded):
    """A session that has ended, possibly of another process: its folder is read but never changed."""

    def __init__(self, folder: Path) -> None:
        """Read the folder.

        Raises:
            ConflictError: the session has not ended, according to its log.
        """
        facts = SessionMeta.model_validate_json((folder / FACTS).read_bytes())
        super().__init__(folder, facts, LogReader(folder / LOG))
        _, ended = self._recall()
        if ended is None:
            raise ConflictError("the take is not over; go on from it where it is made")
        self._ended, self.failure = ended.why, ended.message


S = TypeVar("S", bound=Recorded)


class Register(Generic[S]):
    """The sessions of a host, by id and by watch id. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: dict[str, S] = {}

    def add(self, session: S) -> None:
        with self._lock:
            self._known |= {session.id: session, session.watch_id: session}

    def remove(self, session_id: str) -> None:
        with self._lock:
            session = self._known.get(session_id)
            if session is not None:
                del self._known[session.id], self._known[session.watch_id]

    def get(self, session_id: str) -> S | None:
        return self._known.get(session_id)

    def named(self, session_id: str) -> S:
        """Return the session with this id or watch id.

        Raises:
            NotFoundError: there is no such session.
        """
        found = self.get(session_id)
        if found is None:
            raise NotFoundError("there is no such take; it may have been deleted")
        return found

    def all(self) -> Sequence[S]:
        """All sessions, oldest first."""
        with self._lock:
            found = [session for name, session in self._known.items() if name == session.id]
        return sorted(found, key=lambda s: s.created_at)

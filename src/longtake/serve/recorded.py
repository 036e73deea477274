"""A session as recorded in its folder: how it was opened, its event log, and the chunks in the log."""

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Literal

from pydantic import BaseModel

from longtake.core.errors import InputError, MediaError
from longtake.core.shapes import PictureSize
from longtake.media.targets import Target, reason
from longtake.serve.errors import ConflictError
from longtake.serve.log import EventLog, LogReader
from longtake.serve.messages import ChunkEvent, Ended, Frame, Numbered, Open, Opened, events
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


def new_facts(opening: Open, *, num_chunks: int | None, live: bool, owner: str | None) -> SessionMeta:
    """Facts of a new session, with random ids."""
    return SessionMeta(
        id=secrets.token_urlsafe(16), watch_id=secrets.token_urlsafe(16), created_at=time.time(), opening=opening,
        num_chunks=num_chunks, live=live, owner=owner, folder=secrets.token_hex(12),
    )  # fmt: skip


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
        self._tree = ChunkTree()
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
        """H.264 bytes (Annex B) of each frame of a chunk; the first frame is a key frame.

        Raises:
            InputError: there is no such chunk.
            ConflictError: some of its frames are not in the log yet.
        """
        event = self._tree[chunk]
        n, found = event.n + 1, []
        while len(found) < event.num_frames:
            if n >= len(self.log):
                raise ConflictError(f"chunk {chunk} is being written; ask again in a moment")
            record = self.log.record(n)
            header = json.loads(record.event)
            if header["type"] == "frame" and header["chunk"] == chunk:
                found.append(record.payload)
            n += 1
        return found

    def script(self, chunk: int) -> Script:
        """The script that reproduces the take up to a chunk: that of its branch in the folder, cut after the chunk.

        Raises:
            InputError: there is no such chunk, or the take follows a source.
        """
        event = self._tree[chunk]
        script = self.full_script(event.branch, chunk)
        if script is None:
            raise InputError("the take followed a source, and has no script")
        cues = [cue for cue in script.cues if cue.chunk is not None and cue.chunk <= event.index]
        rebuilt = [index for index in script.rebuilt if index <= event.index]
        return script.model_copy(update={"cues": cues, "rebuilt": rebuilt})

    def full_script(self, branch: int, tip: int | None) -> Script | None:
        """The script of a branch up to the chunk `tip`, with all cues that wait; None: there is none."""
        path = self._script_path(branch)
        if not path.exists():
            return None
        events = [] if tip is None else self._tree.path(tip)
        threads = runs_of([event.threads for event in events])
        return Script.load(path).model_copy(update={"chunks": len(events), "threads": threads})

    def _script_path(self, branch: int) -> Path:
        return self.folder / f"branch-{branch}.take.json"


def repair(log: EventLog) -> list[Numbered]:
    """Cut a chunk off a log's end whose frames are incomplete after a crash, but not how the session ended.

    Returns:
        The events of the entries after the first, without those of frames.
    """
    last, frames, ended = None, 0, None
    found: list[Numbered] = []
    for n in range(1, len(log)):
        event = events.validate_json(log.record(n).event)
        if isinstance(event, ChunkEvent):
            last, frames = event, 0
        elif isinstance(event, Frame):
            frames += 1
        elif isinstance(event, Ended):
            ended = event
        if isinstance(event, Numbered) and not isinstance(event, Frame):
            found.append(event)
    if last is not None and frames < last.num_frames:
        log.cut(last.n)
        found = [event for event in found if event.n < last.n]
        if ended is not None and ended.n >= last.n:
            found.append(log.append(ended))
    return found

"""The chunks of a session, each with the one it follows: what its log tells, found again by number."""

import json
from collections.abc import Sequence

from longtake.core.errors import InputError
from longtake.serve.errors import ConflictError
from longtake.serve.log import EventLog
from longtake.serve.messages import Chunk, Ended, Frame, Opened, events


class ChunkTree:
    """Any thread may read; whoever adds holds the session's lock. Chunks are never taken away."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._chunks: list[Chunk] = []

    def __len__(self) -> int:
        return len(self._chunks)

    def __getitem__(self, chunk: int) -> Chunk:
        """One by its number.

        Raises:
            InputError: there is no such chunk.
        """
        if not 0 <= chunk < len(self._chunks):
            raise InputError(f"there is no chunk {chunk}; {len(self._chunks)} were made")
        return self._chunks[chunk]

    def all(self) -> Sequence[Chunk]:
        """In the order made."""
        return list(self._chunks)

    def path(self, chunk: int) -> Sequence[Chunk]:
        """From the beginning up to one."""
        found = [self[chunk]]
        while (parent := found[-1].parent) is not None:
            found.append(self._chunks[parent])
        return found[::-1]

    def add(self, event: Chunk) -> None:
        """One that was made; it need not be in the log yet."""
        self._chunks.append(event)

    def write(self, event: Chunk) -> Chunk:
        """Put a chunk that was added into the log; its frames come after it."""
        self._chunks[event.chunk] = written = self._log.append(event)
        return written

    def write_frame(self, event: Chunk, k: int, data: bytes) -> None:
        """Put the next frame of a chunk into the log."""
        self._log.append(Frame(chunk=event.chunk, k=k, frame=event.start_frame + k), data)

    def frames(self, chunk: int) -> Sequence[bytes]:
        """H.264 of each of a chunk's frames.

        Raises:
            InputError: there is no such chunk.
            ConflictError: it is not whole yet.
        """
        event = self[chunk]
        n, found = event.n + 1, []
        while len(found) < event.num_frames:
            if event.n < 0 or n >= len(self._log):
                raise ConflictError(f"chunk {chunk} is being written; ask again in a moment")
            record = self._log.record(n)
            header = json.loads(record.event)
            if header["type"] == "frame" and header["chunk"] == chunk:
                found.append(record.payload)
            n += 1
        return found

    def read(self) -> tuple[Opened, Ended | None]:
        """Know again what an earlier process wrote. Chunks of which a crash has cut frames off are left out."""
        opened = events.validate_json(self._log.record(0).event)
        assert isinstance(opened, Opened)
        ended: Ended | None = None
        whole: dict[int, int] = {}
        for n in range(1, len(self._log)):
            event = events.validate_json(self._log.record(n).event)
            if isinstance(event, Chunk):
                self._chunks.append(event)
            elif isinstance(event, Frame):
                whole[event.chunk] = event.k + 1
            elif isinstance(event, Ended):
                ended = event
        while self._chunks and whole.get(self._chunks[-1].chunk, 0) < self._chunks[-1].num_frames:
            self._log.cut(self._chunks.pop().n)
        return opened, ended

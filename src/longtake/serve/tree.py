"""The tree of a session's chunks, and their frames in its log."""

import json
from collections.abc import Sequence

from longtake.core.errors import InputError
from longtake.serve.errors import ConflictError
from longtake.serve.log import LogReader
from longtake.serve.messages import ChunkEvent


class ChunkTree:
    """Chunks by number, each with its parent. Any thread may read; adding requires the session's lock."""

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._chunks: list[ChunkEvent] = []

    def __len__(self) -> int:
        return len(self._chunks)

    def __getitem__(self, chunk: int) -> ChunkEvent:
        """Return the chunk with this number.

        Raises:
            InputError: there is no such chunk.
        """
        if not 0 <= chunk < len(self._chunks):
            raise InputError(f"there is no chunk {chunk}; {len(self._chunks)} were made")
        return self._chunks[chunk]

    def all(self) -> Sequence[ChunkEvent]:
        """All chunks, in order of generation."""
        return list(self._chunks)

    def path(self, chunk: int) -> Sequence[ChunkEvent]:
        """The chunks from the beginning up to and including `chunk`."""
        found = [self[chunk]]
        while (parent := found[-1].parent) is not None:
            found.append(self._chunks[parent])
        return found[::-1]

    def leads_to(self, chunk: int, tip: int | None) -> bool:
        """Whether `chunk` is on the path to `tip`, or is `tip`; None is before all chunks."""
        while tip is not None and self[tip].index > self[chunk].index:
            tip = self[tip].parent
        return tip == chunk

    def add(self, event: ChunkEvent) -> None:
        """Add a new chunk; it need not be in the log yet."""
        self._chunks.append(event)

    def put(self, event: ChunkEvent) -> None:
        """Replace an added chunk by its log entry, which has an entry number."""
        self._chunks[event.chunk] = event

    def drop_last(self) -> ChunkEvent:
        """Remove and return the last chunk. Call it only before the tree has readers."""
        return self._chunks.pop()

    def frames(self, chunk: int) -> Sequence[bytes]:
        """Return the H.264 bytes of each frame of a chunk.

        Raises:
            InputError: there is no such chunk.
            ConflictError: some of its frames are not in the log yet.
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

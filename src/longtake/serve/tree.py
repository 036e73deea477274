"""The chunks of a session, each with the one it follows: what its log tells, found again by number."""

import json
from collections.abc import Sequence

from longtake.core.errors import InputError
from longtake.serve.errors import ConflictError
from longtake.serve.log import LogReader
from longtake.serve.messages import ChunkEvent


class ChunkTree:
    """Any thread may read; whoever adds holds the session's lock."""

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._chunks: list[ChunkEvent] = []

    def __len__(self) -> int:
        return len(self._chunks)

    def __getitem__(self, chunk: int) -> ChunkEvent:
        """One by its number.

        Raises:
            InputError: there is no such chunk.
        """
        if not 0 <= chunk < len(self._chunks):
            raise InputError(f"there is no chunk {chunk}; {len(self._chunks)} were made")
        return self._chunks[chunk]

    def all(self) -> Sequence[ChunkEvent]:
        """In the order made."""
        return list(self._chunks)

    def path(self, chunk: int) -> Sequence[ChunkEvent]:
        """From the beginning up to one."""
        found = [self[chunk]]
        while (parent := found[-1].parent) is not None:
            found.append(self._chunks[parent])
        return found[::-1]

    def add(self, event: ChunkEvent) -> None:
        """One that was made; it need not be in the log yet."""
        self._chunks.append(event)

    def put(self, event: ChunkEvent) -> None:
        """One that was added and is in the log now, with its number there."""
        self._chunks[event.chunk] = event

    def drop_last(self) -> ChunkEvent:
        """Forget the last one. Only before anyone reads."""
        return self._chunks.pop()

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

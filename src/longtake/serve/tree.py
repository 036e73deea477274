"""The tree of a session's chunks."""

from collections.abc import Iterable, Sequence

from longtake.core.errors import InputError
from longtake.serve.messages import ChunkEvent


class ChunkTree:
    """Chunks by number, each with its parent. Any thread may read; adding requires the session's lock."""

    def __init__(self, chunks: Iterable[ChunkEvent] = ()) -> None:
        self._chunks = list(chunks)

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
        """Add a new chunk."""
        self._chunks.append(event)

    def drop_last(self) -> ChunkEvent:
        """Remove and return the last chunk. Call it only before the tree has readers."""
        return self._chunks.pop()

"""Writing of a session's log where its chunks are made: entries are numbered here and kept by the server."""

import threading
from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

from longtake.core.errors import MediaError
from longtake.serve.handover import Entries
from longtake.serve.log import Record, json_of
from longtake.serve.messages import ChunkEvent, Ended, Frame, Numbered
from longtake.studio.script import Script

E = TypeVar("E", bound=Numbered)


class SessionWriter:
    """Numbers the entries of a session's log and sends them to the server, from any thread.

    With `whole_chunks`, a chunk is sent when its last frame is encoded, so that one that is lost with its worker was
    never seen.
    """

    def __init__(self, session_id: str, next_n: int, send: Callable[[Entries], object], *, whole_chunks: bool) -> None:
        self._session_id = session_id
        self._next = next_n
        self._send = send
        self._whole_chunks = whole_chunks
        self._lock = threading.Lock()
        self._closed = False
        self._missing = 0  # frames that the chunk being written lacks
        self._records: list[Record] = []
        self._scripts: dict[int, Script] = {}
        self._latents: dict[int, Tensor] = {}

    def append(self, event: E, payload: bytes = b"") -> E:
        """Append an entry; returns the event with its number. What was kept before is sent with it.

        Raises:
            MediaError: the server cannot store it; the log is unchanged.
        """
        with self._lock:
            numbered = event.model_copy(update={"n": self._next})
            if self._closed:
                return numbered
            self._next += 1
            self._records.append(Record(numbered.n, json_of(numbered), payload))
            if isinstance(event, ChunkEvent):
                self._missing = event.num_frames
            elif isinstance(event, Frame):
                self._missing -= 1
            if not (self._whole_chunks and self._missing) or isinstance(event, Ended):
                self._flush()
        return numbered

    def keep_script(self, branch: int, script: Script) -> None:
        """Keep the script of a branch."""
        with self._lock:
            self._scripts[branch] = script

    def keep_latents(self, chunk: int, latent: Tensor) -> None:
        """Keep the latents of a chunk."""
        with self._lock:
            self._latents[chunk] = latent

    def close(self) -> int:
        """Send nothing any more; returns the number of entries of the log."""
        with self._lock:
            self._closed = True
            return self._next - len(self._records)

    def _flush(self) -> None:
        entries = Entries(self._session_id, tuple(self._records), self._scripts, self._latents)
        self._records, self._scripts, self._latents = [], {}, {}
        try:
            self._send(entries)
        except MediaError:
            self._next = entries.records[0].n
            raise

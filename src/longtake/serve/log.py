"""The append-only, numbered log of a session: a file of records, read by everyone at their own speed.

    record   length of the rest (u32) | length of the event (u32) | event (JSON) | bytes of a frame, if it is one

Nothing waits in memory for a slow reader: whoever is behind reads further back in the file.
"""

import asyncio
import os
import struct
import threading
from array import array
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar
from weakref import finalize

from longtake.core.errors import MediaError
from longtake.media.targets import reason
from longtake.serve.messages import Message, Numbered

LENGTHS = struct.Struct("<II")

E = TypeVar("E", bound=Numbered)


class Record(NamedTuple):
    """An entry as it is stored and sent."""

    n: int
    event: bytes  # JSON
    payload: bytes

    @property
    def message(self) -> bytes:
        """As a binary message of a socket: length of the event, event, bytes."""
        return struct.pack("<I", len(self.event)) + self.event + self.payload

    @property
    def framed(self) -> bytes:
        """As in the file: the message after its length."""
        return LENGTHS.pack(4 + len(self.event) + len(self.payload), len(self.event)) + self.event + self.payload


class LogReader:
    """Entries 0, 1, 2, ... of a session, which something else appends: any number may read, from any thread."""

    _FLAGS = os.O_RDONLY

    def __init__(self, path: Path) -> None:
        """Open a log that is there.

        Raises:
            MediaError: the file cannot be opened.
        """
        self.path = path
        self._lock = threading.Lock()
        self._offsets = array("Q")
        self._listeners: list[Callable[[], None]] = []
        self._end = 0
        try:
            self._file = os.open(path, self._FLAGS, 0o600)
        except OSError as error:
            raise MediaError(f"cannot open {path}: {reason(error)}") from error
        finalize(self, os.close, self._file)  # when the last one who reads it has gone
        self._scan()

    def __len__(self) -> int:
        return len(self._offsets)

    def record(self, n: int) -> Record:
        """Entry `n`.

        Raises:
            IndexError: there is none.
        """
        start = self._offsets[n]
        rest, length = LENGTHS.unpack(os.pread(self._file, LENGTHS.size, start))
        data = os.pread(self._file, rest - 4, start + LENGTHS.size)
        return Record(n, data[:length], data[length:])

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have a function called after each entry, from the thread that appends; returns how to stop that."""
        with self._lock:
            self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def look(self) -> None:
        """Find what another process has appended, and tell those who listen."""
        with self._lock:
            self._scan()
        self._tell()

    async def tail(self, after: int = -1) -> AsyncGenerator[Record]:
        """All entries after one, and then those to come, as they come. Without end."""
        loop, news = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            with suppress(RuntimeError):  # the loop has ended, and its readers with it
                loop.call_soon_threadsafe(news.set)

        stop = self.listen(tell)
        try:
            n = after + 1
            while True:
                news.clear()
                while n < len(self):
                    yield self.record(n)
                    n += 1
                await news.wait()
        finally:
            stop()

    def _tell(self) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def _scan(self) -> None:
        """Find the whole entries after the last one that is known."""
        size = os.fstat(self._file).st_size
        while self._end + LENGTHS.size <= size:
            rest, _ = LENGTHS.unpack(os.pread(self._file, LENGTHS.size, self._end))
            stop = self._end + 4 + rest
            if stop > size:
                break
            self._offsets.append(self._end)
            self._end = stop


class EventLog(LogReader):
    """A log of this process, which any thread may append to."""

    _FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND

    def __init__(self, path: Path) -> None:
        """Open a log, or go on with one; an entry that a crash has cut short is dropped.

        Raises:
            MediaError: the file cannot be opened.
        """
        super().__init__(path)
        if os.fstat(self._file).st_size > self._end:
            os.ftruncate(self._file, self._end)

    def append(self, event: E, payload: bytes = b"") -> E:
        """Add an entry; the event comes back with its number.

        Raises:
            MediaError: the disk is full. The log is as it was.
        """
        with self._lock:
            numbered = event.model_copy(update={"n": len(self._offsets)})
            data = Record(numbered.n, json_of(numbered), payload).framed
            try:
                written = os.write(self._file, data)
            except OSError as error:
                raise MediaError(f"cannot write {self.path}: {reason(error)}") from error
            if written < len(data):
                os.ftruncate(self._file, self._end)
                raise MediaError(f"cannot write {self.path}: the disk is full")
            self._offsets.append(self._end)
            self._end += written
        self._tell()
        return numbered

    def cut(self, n: int) -> None:
        """Forget entry `n` and all after it. Only before anyone reads."""
        with self._lock:
            self._end = self._offsets[n]
            del self._offsets[n:]
            os.ftruncate(self._file, self._end)


def json_of(message: Message) -> bytes:
    """A message as it is stored and sent."""
    return message.model_dump_json().encode()

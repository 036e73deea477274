"""The append-only, numbered event log of a session: a file of records, which each reader reads at its own speed.

    record   length of the rest (u32) | length of the event (u32) | event (JSON) | bytes of the frame, if any

Nothing is queued in memory for slow readers: they read older entries from the file.
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
    """A log entry as it is stored and sent."""

    n: int
    event: bytes  # JSON
    payload: bytes

    @property
    def message(self) -> bytes:
        """The entry as a binary WebSocket message: length of the event (u32), event, payload."""
        return struct.pack("<I", len(self.event)) + self.event + self.payload

    @property
    def framed(self) -> bytes:
        """The entry as in the file: length of the message (u32), message."""
        return LENGTHS.pack(4 + len(self.event) + len(self.payload), len(self.event)) + self.event + self.payload


class LogReader:
    """Reads entries 0, 1, 2, ... of a log that a subclass or another process appends to. Any thread may read."""

    _FLAGS = os.O_RDONLY

    def __init__(self, path: Path) -> None:
        """Open an existing log.

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
        finalize(self, os.close, self._file)  # closes the file when the last reference is gone
        self._scan()

    def __len__(self) -> int:
        return len(self._offsets)

    def record(self, n: int) -> Record:
        """Read entry `n`.

        Raises:
            IndexError: there is no such entry.
        """
        if n < 0:
            raise IndexError(n)
        start = self._offsets[n]
        rest, length = LENGTHS.unpack(os.pread(self._file, LENGTHS.size, start))
        data = os.pread(self._file, rest - 4, start + LENGTHS.size)
        return Record(n, data[:length], data[length:])

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Register a callback, run by the appending thread after each entry; returns a function that unregisters it."""
        with self._lock:
            self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def look(self) -> None:
        """Find entries that another process has appended, and call the listeners."""
        with self._lock:
            self._scan()
        self._tell()

    async def tail(self, after: int = -1) -> AsyncGenerator[Record]:
        """Yield all entries after entry `after`, then new ones as they are appended; never ends."""
        loop, news = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            with suppress(RuntimeError):  # the loop is closed, so no reader is left
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
        """Index the complete entries after the last indexed one."""
        size = os.fstat(self._file).st_size
        while self._end + LENGTHS.size <= size:
            rest, _ = LENGTHS.unpack(os.pread(self._file, LENGTHS.size, self._end))
            stop = self._end + 4 + rest
            if stop > size:
                break
            self._offsets.append(self._end)
            self._end = stop


class EventLog(LogReader):
    """A log that this process appends to, from any thread."""

    _FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND

    def __init__(self, path: Path) -> None:
        """Create a log, or open an existing one; an entry that a crash has truncated is removed.

        Raises:
            MediaError: the file cannot be opened.
        """
        super().__init__(path)
        if os.fstat(self._file).st_size > self._end:
            os.ftruncate(self._file, self._end)

    def append(self, event: E, payload: bytes = b"") -> E:
        """Append an entry; returns the event with its number.

        Raises:
            MediaError: the file cannot be written, as on a full disk; the log is unchanged.
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
        """Remove entry `n` and all later ones. Call it only before the log has readers."""
        with self._lock:
            self._end = self._offsets[n]
            del self._offsets[n:]
            os.ftruncate(self._file, self._end)


def json_of(message: Message) -> bytes:
    """Serialize a message as UTF-8 JSON, the form in which it is stored and sent."""
    return message.model_dump_json().encode()

"""The append-only, numbered event log of a session: a file of records, which each reader reads at its own speed.

    record   length of the rest (u32) | length of the event (u32) | event (JSON) | bytes of the frame, if any

Nothing is queued in memory for slow readers: they read older entries from the file.
"""

import asyncio
import os
import struct
import threading
from array import array
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

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
    """Reads entries 0, 1, 2, ... of a log that a subclass appends to. Any thread may read.

    The file is open only while it is read or written, so that any number of sessions needs no descriptors.
    """

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
        self._scan()

    def __len__(self) -> int:
        return len(self._offsets)

    def record(self, n: int) -> Record:
        """Read entry `n`.

        Raises:
            IndexError: there is no such entry.
            MediaError: the file cannot be read, because the session was deleted, say.
        """
        if n < 0:
            raise IndexError(n)
        start = self._offsets[n]
        with self._open() as file:
            rest, length = LENGTHS.unpack(os.pread(file, LENGTHS.size, start))
            data = os.pread(file, rest - 4, start + LENGTHS.size)
        return Record(n, data[:length], data[length:])

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Register a callback, run by the appending thread after each entry; returns a function that unregisters it."""
        with self._lock:
            self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def tail(self, after: int = -1) -> AsyncGenerator[Record]:
        """Yield all entries after entry `after`, then new ones as they are appended, until the log is deleted."""
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
                    try:
                        record = self.record(n)
                    except MediaError:
                        if self.path.exists():
                            raise
                        return  # the session was deleted
                    yield record
                    n += 1
                await news.wait()
        finally:
            stop()

    def tell(self) -> None:
        """Call the listeners."""
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def _scan(self) -> None:
        """Index the complete entries after the last indexed one."""
        with self._open() as file:
            size = os.fstat(file).st_size
            while self._end + LENGTHS.size <= size:
                rest, _ = LENGTHS.unpack(os.pread(file, LENGTHS.size, self._end))
                stop = self._end + 4 + rest
                if stop > size:
                    break
                self._offsets.append(self._end)
                self._end = stop

    @contextmanager
    def _open(self, flags: int = os.O_RDONLY) -> Generator[int]:
        """Open the file for as long as the block runs; gives its descriptor.

        Raises:
            MediaError: it cannot be opened, read or written.
        """
        try:
            file = os.open(self.path, flags, 0o600)
            try:
                yield file
            finally:
                os.close(file)
        except MediaError:
            raise
        except OSError as error:
            raise MediaError(f"cannot use {self.path}: {reason(error)}") from error


class EventLog(LogReader):
    """A log that this process appends to, from any thread."""

    def __init__(self, path: Path) -> None:
        """Create a log, or open an existing one; an entry that a crash has truncated is removed.

        Raises:
            MediaError: the file cannot be opened.
        """
        self.path = path
        with self._open(os.O_RDWR | os.O_CREAT):
            pass
        super().__init__(path)
        with self._open(os.O_RDWR) as file:
            if os.fstat(file).st_size > self._end:
                os.ftruncate(file, self._end)

    def append(self, event: E, payload: bytes = b"") -> E:
        """Append an entry; returns the event with its number.

        Raises:
            MediaError: the file cannot be written, as on a full disk; the log is unchanged.
        """
        with self._lock:
            numbered = event.model_copy(update={"n": len(self._offsets)})
            self._write([Record(numbered.n, json_of(numbered), payload)])
        self.tell()
        return numbered

    def extend(self, records: Sequence[Record]) -> None:
        """Append entries that have their numbers already, all of them or none; the listeners are not called.

        Raises:
            MediaError: as `append`.
        """
        with self._lock:
            assert [record.n for record in records] == list(range(len(self), len(self) + len(records)))
            self._write(records)

    def _write(self, records: Sequence[Record]) -> None:
        framed = [record.framed for record in records]
        data = b"".join(framed)
        with self._open(os.O_RDWR | os.O_APPEND) as file:
            if os.write(file, data) < len(data):
                os.ftruncate(file, self._end)
                raise MediaError(f"cannot write {self.path}: the disk is full")
        for one in framed:
            self._offsets.append(self._end)
            self._end += len(one)

    def cut(self, n: int) -> None:
        """Remove entry `n` and all later ones. Call it only before the log has readers."""
        with self._lock:
            self._end = self._offsets[n]
            del self._offsets[n:]
            with self._open(os.O_RDWR) as file:
                os.ftruncate(file, self._end)


def json_of(message: Message) -> bytes:
    """Serialize a message as UTF-8 JSON, the form in which it is stored and sent."""
    return message.model_dump_json().encode()

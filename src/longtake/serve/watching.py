"""A viewer's connection to a session: its log as it grows, the statuses between its entries, and the commands."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Literal

from anyio import CancelScope, create_task_group
from fastapi import WebSocket, WebSocketDisconnect
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from longtake.core.errors import InputError, LongtakeError
from longtake.media.live import jpegs_of
from longtake.serve.errors import ConflictError, ForbiddenError, code_of
from longtake.serve.log import Record, json_of
from longtake.serve.messages import MAX_EVENT_ID, Credit, Frame, Message, Refused, Status, commands
from longtake.serve.session import Session
from longtake.serve.viewers import Viewer

Wanted = Literal["h264", "jpeg"]

CREDITS = 3  # pictures of a source that may be in flight
MAX_UPSTREAM_BYTES = 4 * 1024**2


class Watching:
    """One WebSocket connection to a session."""

    def __init__(self, socket: WebSocket, session: Session, *, may_direct: bool) -> None:
        self._socket = socket
        self._session = session
        self._may_direct = may_direct
        self._viewer = Viewer()
        self._statuses: asyncio.Queue[Status] = asyncio.Queue(maxsize=1)  # only the newest status is kept
        self._sending = asyncio.Lock()

    async def serve(self, after: int, frames: Wanted) -> None:
        """Send events and receive commands until the viewer disconnects."""
        loop, session = asyncio.get_running_loop(), self._session
        stop = session.listen(lambda status: loop.call_soon_threadsafe(_put_newest, self._statuses, status))
        await run_in_threadpool(session.watched, self._viewer)
        _put_newest(self._statuses, await run_in_threadpool(lambda: session.status))
        try:
            async with create_task_group() as tasks:
                tasks.start_soon(self._send_log, after, frames)
                tasks.start_soon(self._send_statuses)
                await self._listen()
                tasks.cancel_scope.cancel()
        finally:
            stop()
            await leave(session, self._viewer)

    async def _send_log(self, after: int, frames: Wanted) -> None:
        async for record in as_wanted(self._session, after, frames):
            await self._send(record.message if record.payload else record.event.decode())

    async def _send_statuses(self) -> None:
        if self._session.opened.source == "frames":
            await self._say(Credit(frames=CREDITS))
        while True:
            await self._say(await self._statuses.get())
            await asyncio.sleep(0.1)

    async def _listen(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if (data := message.get("bytes")) is not None:
                await self._take_picture(data)
            else:
                await self._follow(message.get("text") or "")

    async def _follow(self, text: str) -> None:
        event_id = None
        try:
            command = commands.validate_json(text)
            event_id = command.event_id
            check_may_direct(yes=self._may_direct or command.type == "seen")
            event = await run_in_threadpool(self._session.do, command, self._viewer)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the message"
            await self._say(
                Refused(event_id=_event_id_in(text), code="bad_message", message=f"{where}: {first['msg']}")
            )
        except LongtakeError as error:
            await self._say(refusal(error, event_id))
        else:
            if event.type == "done" and event_id is not None:  # all other events come through the log
                await self._say(event)

    async def _take_picture(self, data: bytes) -> None:
        try:
            check_may_direct(yes=self._may_direct)
            if len(data) > MAX_UPSTREAM_BYTES:
                raise InputError(f"a picture of a source has at most {MAX_UPSTREAM_BYTES >> 20} MiB")
            await run_in_threadpool(self._session.push, data)
        except LongtakeError as error:
            await self._say(refusal(error, None))
        await self._say(Credit(frames=1))

    async def _say(self, message: Message) -> None:
        await self._send(json_of(message).decode())

    async def _send(self, data: str | bytes) -> None:
        """Send a message; if the viewer has just disconnected, do nothing, since `_listen` notices it."""
        async with self._sending:
            with suppress(WebSocketDisconnect, RuntimeError):
                await (self._socket.send_text(data) if isinstance(data, str) else self._socket.send_bytes(data))


def check_may_direct(*, yes: bool) -> None:
    """Check that a link and a key may direct a session.

    Raises:
        ForbiddenError: they may not.
    """
    if not yes:
        raise ForbiddenError("this link or this key is for watching; it cannot direct the take")


async def leave(session: Session, viewer: Viewer) -> None:
    """Unregister a viewer, even while the response is being cancelled."""
    with CancelScope(shield=True):
        await run_in_threadpool(session.left, viewer)


def refusal(error: LongtakeError, event_id: str | None) -> Refused:
    """Convert an error to the `refused` message."""
    return Refused(event_id=event_id, code=code_of(error), message=str(error))


async def as_wanted(session: Session, after: int, frames: Wanted) -> AsyncGenerator[Record]:
    """Yield the log with frames in the requested format. JPEGs of an incomplete last chunk are left out."""
    jpegs: dict[tuple[int, int], bytes] = {}  # (chunk, k) -> JPEG, of the chunk that is being sent
    async for record in session.log.tail(after):
        if frames == "h264" or not record.payload:
            yield record
            continue
        header = Frame.model_validate_json(record.event)
        if (header.chunk, header.k) not in jpegs:
            try:
                files = await _jpegs_when_whole(session, header.chunk)
            except ConflictError:
                continue
            jpegs = {(header.chunk, k): data for k, data in enumerate(files)}
        yield record._replace(payload=jpegs[header.chunk, header.k])


async def with_statuses(session: Session, log: AsyncGenerator[Record]) -> AsyncIterator[Record]:
    """Yield the entries of a log and, between them, the session's status whenever it changes."""
    loop = asyncio.get_running_loop()
    statuses: asyncio.Queue[Status] = asyncio.Queue(maxsize=1)
    stop = session.listen(lambda status: loop.call_soon_threadsafe(_put_newest, statuses, status))
    entry, news = asyncio.ensure_future(anext(log)), asyncio.ensure_future(statuses.get())
    try:
        yield Record(-1, json_of(await run_in_threadpool(lambda: session.status)), b"")
        while True:
            await asyncio.wait((entry, news), return_when=asyncio.FIRST_COMPLETED)
            if entry.done():
                yield entry.result()
                entry = asyncio.ensure_future(anext(log))
            if news.done():
                yield Record(-1, json_of(news.result()), b"")
                news = asyncio.ensure_future(statuses.get())
    finally:
        stop()
        entry.cancel()  # this also ends the log's generator
        news.cancel()


def _put_newest(statuses: asyncio.Queue[Status], status: Status) -> None:
    """Queue a status in place of an older one that waits to be sent."""
    if statuses.full():
        statuses.get_nowait()
    statuses.put_nowait(status)


async def _jpegs_when_whole(session: Session, chunk: int) -> list[bytes]:
    """Return a chunk's frames as JPEG files, as soon as the last one is in the log.

    Raises:
        ConflictError: the chunk will never be complete.
    """
    async for _ in session.log.tail(len(session.log) - 2):
        try:
            frames = session.frames(chunk)
        except ConflictError:
            if session.ended in ("lost", "failed"):
                raise
            continue
        return await run_in_threadpool(jpegs_of, frames)
    raise AssertionError("a tail has no end")


def is_last(record: Record) -> bool:
    """Whether a log entry is the last one."""
    return not record.payload and json.loads(record.event)["type"] == "ended"


def _event_id_in(text: str) -> str | None:
    """Find the event_id of an invalid message, if it has one."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return None
    found = said.get("event_id") if isinstance(said, dict) else None
    return found if isinstance(found, str) and 1 <= len(found) <= MAX_EVENT_ID else None

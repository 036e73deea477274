"""Routes of live takes: open a session, follow its log, direct it, export any part of it; see `docs/protocol.md`."""

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from anyio import CancelScope, create_task_group, to_thread
from fastapi import APIRouter, Body, Depends, Query, Request, Response, WebSocket, WebSocketDisconnect
from fastapi import Path as InPath
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import ValidationError
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool

from longtake.core.errors import InputError, LongtakeError
from longtake.media.animations import open_writer
from longtake.media.live import jpeg_of, jpegs_of, pictures_of, write_mp4
from longtake.serve.errors import ConflictError, ForbiddenError, RateLimitError, code_of
from longtake.serve.guard import key_of, owner_of
from longtake.serve.host import Session
from longtake.serve.log import Record, json_of
from longtake.serve.messages import MAX_EVENT_ID, Command, Credit, Frame, Message, Open, Refused, Status, commands
from longtake.serve.recorded import EXPORTS
from longtake.serve.viewers import Viewer

Wanted = Literal["h264", "jpeg"]

PROTOCOL = "longtake.v2"  # the WebSocket's subprotocol
IMMUTABLE = {"Cache-Control": "private, max-age=31536000, immutable"}
CREDITS = 3  # pictures of a source that may be in flight
MAX_UPSTREAM_BYTES = 4 * 1024**2

router = APIRouter()


def session_of(request: Request, session_id: str) -> Session:
    """Return the session with the id in a route.

    Raises:
        NotFoundError: there is no such session.
    """
    return request.app.state.host.session(session_id)


Found = Annotated[Session, Depends(session_of)]
ChunkIdx = Annotated[int, InPath(ge=0, lt=2**31)]
Scale = Annotated[int, Query(ge=1, le=4)]


@router.post("/api/takes", status_code=201)
async def begin(request: Request, opening: Annotated[Open, Body()]) -> dict[str, object]:
    """Open a session."""
    host, owner = request.app.state.host, _new_owner(request)
    return _begun(await run_in_threadpool(lambda: host.open(opening, owner=owner)))


@router.post("/api/takes/{session_id}/chunks/{chunk}/takes", status_code=201)
async def go_on(request: Request, session: Found, chunk: ChunkIdx) -> dict[str, object]:
    """Open a session that continues after a chunk of another one, which may have ended."""
    host, owner = request.app.state.host, _new_owner(request)
    return _begun(await run_in_threadpool(lambda: host.go_on(session, chunk, owner=owner)))


@router.get("/api/takes")
def gallery(request: Request) -> dict[str, object]:
    """List the live sessions, newest first."""
    return {"takes": [summary(session) for session in _own(request) if session.live]}


@router.get("/api/takes/{session_id}")
def one(session: Found, session_id: str) -> dict[str, object]:
    """Return a session with its tree of chunks, under the id that was asked for: a watch id must not give the other."""
    tree = [chunk.model_dump() for chunk in session.chunks()]
    return {**summary(session), "id": session_id, "opened": session.opened.model_dump(), "tree": tree}


@router.delete("/api/takes/{session_id}", status_code=204)
async def forget(request: Request, session: Found, session_id: str) -> None:
    """End a session and delete it."""
    _check_may_direct(yes=session_id == session.id)
    await run_in_threadpool(request.app.state.host.forget, session)


@router.post("/api/takes/{session_id}/commands")
async def say(session: Found, session_id: str, command: Annotated[Command, Body()]) -> Response:
    """Execute one command, for clients without a WebSocket."""
    _check_may_direct(yes=session_id == session.id)
    event = await run_in_threadpool(session.do, command)
    return Response(json_of(event), media_type="application/json")


@router.get("/api/takes/{session_id}/events")
async def tail(session: Found, after: Annotated[int, Query(ge=-1)] = -1, frames: Wanted = "h264") -> StreamingResponse:
    """Stream the log after an entry, then new entries, as records in one long response."""
    viewer = Viewer(over_http=True)

    async def records() -> AsyncIterator[bytes]:
        await run_in_threadpool(session.watched, viewer)
        try:
            async for record in _with_statuses(session, _as_wanted(session, after, frames)):
                yield record.framed
                if _is_last(record):
                    return
        finally:
            await _leave(session, viewer)

    headers = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
    return StreamingResponse(records(), media_type="application/octet-stream", headers=headers)


@router.get("/api/takes/{session_id}/chunks/{chunk}.frames")
async def chunk_frames(session: Found, chunk: ChunkIdx, frames: Wanted = "h264") -> Response:
    """Return the frames of a chunk as records."""
    data = await run_in_threadpool(_chunk_records, session, chunk, frames)
    return Response(data, media_type="application/octet-stream", headers=IMMUTABLE)


@router.get("/api/takes/{session_id}/chunks/{chunk}.jpg")
async def thumbnail(session: Found, chunk: ChunkIdx) -> Response:
    """Return a chunk's first frame as JPEG."""
    data = await run_in_threadpool(lambda: jpeg_of(pictures_of(session.frames(chunk)[:1])[0]))
    return Response(data, media_type="image/jpeg", headers=IMMUTABLE)


@router.get("/api/takes/{session_id}/paths/{chunk}.{kind}")
async def path_file(
    request: Request,
    session: Found,
    chunk: ChunkIdx,
    kind: Literal["mp4", "gif", "webp", "json"],
    scale: Scale = 1,
) -> Response:
    """Export the take from the beginning up to a chunk, as a script (json) or as a video enlarged `scale` times."""
    if kind == "json":
        script = await run_in_threadpool(session.script, chunk)
        text = script.model_dump_json(indent=2, exclude_none=True)
        return Response(text, media_type="application/json", headers=_as_file(f"take-{chunk}.take.json"))
    exporting = partial(_exported, session, chunk, kind, scale)
    path = await to_thread.run_sync(exporting, limiter=request.app.state.exports)
    headers = IMMUTABLE | _as_file(f"take-{chunk}.{kind}")
    return FileResponse(path, headers=headers, background=BackgroundTask(path.unlink, missing_ok=True))


@router.websocket("/api/takes/{session_id}/live")
async def live(socket: WebSocket, session_id: str, after: int = -1, frames: Wanted = "h264") -> None:
    """Send the log and receive commands."""
    offered = socket.scope.get("subprotocols", [])
    await socket.accept(PROTOCOL if PROTOCOL in offered else None)
    try:
        session = socket.app.state.host.session(session_id)
    except LongtakeError as error:
        await socket.send_text(json_of(refusal(error, None)).decode())
        await socket.close(4404, "there is no such take")
        return
    key = key_of(socket)
    may_direct = session_id == session.id and (key is None or key.allows("direct"))
    await Watching(socket, session, may_direct=may_direct).serve(max(after, -1), frames)


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
            await _leave(session, self._viewer)

    async def _send_log(self, after: int, frames: Wanted) -> None:
        async for record in _as_wanted(self._session, after, frames):
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
            _check_may_direct(yes=self._may_direct or command.type == "seen")
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
            _check_may_direct(yes=self._may_direct)
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


async def _leave(session: Session, viewer: Viewer) -> None:
    """Unregister a viewer, even while the response is being cancelled."""
    with CancelScope(shield=True):
        await run_in_threadpool(session.left, viewer)


def refusal(error: LongtakeError, event_id: str | None) -> Refused:
    """Convert an error to the `refused` message."""
    return Refused(event_id=event_id, code=code_of(error), message=str(error))


def summary(session: Session) -> dict[str, object]:
    """Summarize a session for the gallery."""
    chunks, tip = session.chunks(), session.tip
    last = chunks[tip] if tip is not None and tip < len(chunks) else None
    return {
        "id": session.id,
        "prompt": session.opening.prompt,
        "created_at": session.created_at,
        "state": session.status.state,
        "chunks": len(chunks),
        "seconds": 0.0 if last is None else (last.start_frame + last.num_frames) / session.opened.fps,
        "tip": tip,
    }


async def _as_wanted(session: Session, after: int, frames: Wanted) -> AsyncGenerator[Record]:
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


async def _with_statuses(session: Session, log: AsyncGenerator[Record]) -> AsyncIterator[Record]:
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


def _chunk_records(session: Session, chunk: int, frames: Wanted) -> bytes:
    data, event = session.frames(chunk), session.chunks()[chunk]
    payloads: Iterable[bytes] = data if frames == "h264" else jpegs_of(data)
    records = []
    for k, payload in enumerate(payloads):
        header = Frame(chunk=chunk, k=k, frame=event.start_frame + k)
        records.append(Record(-1, json_of(header), payload).framed)
    return b"".join(records)


def _exported(session: Session, chunk: int, kind: str, scale: int) -> Path:
    """Write the path up to a chunk to a file for one response. It is not cached, since an mp4 is only remuxed."""
    path = session.folder / EXPORTS / f"{secrets.token_hex(8)}.{kind}"
    chunks = (session.frames(event.chunk) for event in session.path(chunk))
    if kind == "mp4" and scale == 1:
        return write_mp4(path, chunks, session.opened.fps)
    with open_writer(path, fps=session.opened.fps, size=session.size, scale=scale) as writer:
        for frames in chunks:
            writer.push(pictures_of(frames))
    return path


def _own(request: Request) -> Iterator[Session]:
    """The sessions that the request sees: those that were opened with its key, or all."""
    owner = owner_of(request)
    return (s for s in request.app.state.host.sessions() if owner in (None, s.owner))


def _new_owner(request: Request) -> str | None:
    """Return the owner of the session that a request opens: the id of its key, or None without keys.

    Raises:
        RateLimitError: the key has reached its limit of live sessions.
    """
    key = key_of(request)
    if key is None:
        return None
    open_now = sum(s.owner == key.id and s.live and s.ended is None for s in request.app.state.host.sessions())
    if open_now >= key.takes:
        raise RateLimitError(f"the key may have {key.takes} takes at once; close one", 5)
    return key.id


def _begun(session: Session) -> dict[str, object]:
    return {"id": session.id, "watch": session.watch_id, "opened": session.opened.model_dump()}


def _as_file(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'inline; filename="{name}"'}


def _check_may_direct(*, yes: bool) -> None:
    if not yes:
        raise ForbiddenError("this link or this key is for watching; it cannot direct the take")


def _is_last(record: Record) -> bool:
    return not record.payload and json.loads(record.event)["type"] == "ended"


def _event_id_in(text: str) -> str | None:
    """Find the event_id of an invalid message, if it has one."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return None
    found = said.get("event_id") if isinstance(said, dict) else None
    return found if isinstance(found, str) and 1 <= len(found) <= MAX_EVENT_ID else None

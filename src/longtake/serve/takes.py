"""Routes of live takes: open a session, follow its log, direct it, export any part of it; see `docs/protocol.md`."""

import secrets
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Body, Depends, Query, Request, Response, WebSocket
from fastapi import Path as InPath
from fastapi.responses import FileResponse, StreamingResponse
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool

from longtake.core.errors import LongtakeError
from longtake.media.animations import open_writer
from longtake.media.live import jpeg_of, jpegs_of, pictures_of, write_mp4
from longtake.serve.errors import RateLimitError
from longtake.serve.guard import key_of, owner_of
from longtake.serve.log import Record, json_of
from longtake.serve.messages import CUE, OPENING, Command, Frame, Open
from longtake.serve.recorded import EXPORTS
from longtake.serve.session import Session
from longtake.serve.viewers import Viewer
from longtake.serve.watching import (
    Wanted,
    Watching,
    as_wanted,
    check_may_direct,
    is_last,
    leave,
    refusal,
    with_statuses,
)

PROTOCOL = "longtake.v2"  # the WebSocket's subprotocol
IMMUTABLE = {"Cache-Control": "private, max-age=31536000, immutable"}

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
async def begin(request: Request, opening: Annotated[Open, Body(examples=[OPENING])]) -> dict[str, object]:
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
    check_may_direct(yes=session_id == session.id)
    await run_in_threadpool(request.app.state.host.forget, session)


@router.put("/api/takes/{session_id}/star", status_code=204)
def star(session: Found, session_id: str) -> None:
    """Star a session: where only some are kept, starred ones are deleted last."""
    check_may_direct(yes=session_id == session.id)
    session.star(on=True)


@router.delete("/api/takes/{session_id}/star", status_code=204)
def unstar(session: Found, session_id: str) -> None:
    """Remove the star of a session."""
    check_may_direct(yes=session_id == session.id)
    session.star(on=False)


@router.post("/api/takes/{session_id}/commands")
async def say(session: Found, session_id: str, command: Annotated[Command, Body(examples=[CUE])]) -> Response:
    """Execute one command, for clients without a WebSocket."""
    check_may_direct(yes=session_id == session.id)
    event = await run_in_threadpool(session.do, command)
    return Response(json_of(event), media_type="application/json")


@router.get("/api/takes/{session_id}/events")
async def tail(session: Found, after: Annotated[int, Query(ge=-1)] = -1, frames: Wanted = "h264") -> StreamingResponse:
    """Stream the log after an entry, then new entries, as records in one long response."""
    viewer = Viewer(over_http=True)

    async def records() -> AsyncIterator[bytes]:
        await run_in_threadpool(session.watched, viewer)
        try:
            async for record in with_statuses(session, as_wanted(session, after, frames)):
                yield record.framed
                if is_last(record):
                    return
        finally:
            await leave(session, viewer)

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
        "starred": session.starred,
    }


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
    open_now = sum(s.owner == key.id and s.live and s.is_open for s in request.app.state.host.sessions())
    if open_now >= key.takes:
        raise RateLimitError(f"the key may have {key.takes} takes at once; close one", 5)
    return key.id


def _begun(session: Session) -> dict[str, object]:
    return {"id": session.id, "watch": session.watch_id, "opened": session.opened.model_dump()}


def _as_file(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'inline; filename="{name}"'}

"""Routes of the video API, compatible with OpenAI's, so that its clients can be used unchanged. A video is a job."""

import base64
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Literal

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from longtake.core.errors import InputError
from longtake.serve.assets import Asset, pieces_of
from longtake.serve.errors import BusyError, UnsupportedError
from longtake.serve.guard import key_of, owner_of
from longtake.serve.job import random_seed
from longtake.serve.jobs import Jobs
from longtake.serve.messages import Open, VideoRequest
from longtake.serve.plans import NewVideo
from longtake.serve.store import UNFINISHED, VideoRow
from longtake.serve.takes import IMMUTABLE
from longtake.serve.video_requests import Body, Create, Edit, Existing, Extend, Form, Picture, Remix, body_of, checked

POLL_AFTER_MS = "500"

router = APIRouter(prefix="/v1/videos")


@router.post("", openapi_extra=body_of(Create, {"prompt": "a tiger walks through a forest", "seconds": "4", "seed": 3}))
async def create(request: Request) -> dict[str, object]:
    """Start a video."""
    jobs = _jobs(request)
    async with Form(request) as fields:
        asked = checked(Create, fields)
        _check_can_be(jobs, asked)
        image = None if asked.input_reference is None else await _picture(jobs, asked.input_reference)
    opening = Open(
        prompt=asked.prompt,
        seed=_seed(asked),
        steps=asked.steps,
        guidance=asked.guidance,
        negative_prompt=asked.negative_prompt,
        image=image,
    )
    return await _started(request, jobs.planner.create(opening, asked.seconds), asked)


@router.get("")
def listed(
    request: Request,
    after: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
) -> dict[str, object]:
    """List a page of videos."""
    jobs = _jobs(request)
    rows = jobs.store.videos(after=after, limit=limit + 1, newest_first=order == "desc", owner=owner_of(request))
    data = [shown(row, request) for row in rows[:limit]]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(rows) > limit,
    }


@router.post(
    "/edits",
    openapi_extra=body_of(Edit, {"prompt": "a tiger in the snow", "video": {"id": "video_0123456789abcdefghijklmn"}}),
)
async def edit(request: Request) -> dict[str, object]:
    """Start a video that restyles an uploaded video or one of this server."""
    jobs = _jobs(request)
    async with Form(request) as fields:
        asked = checked(Edit, fields)
        if isinstance(asked.video, UploadFile):
            row, asset = None, await jobs.assets.receive(pieces_of(asked.video))
        else:
            row = await run_in_threadpool(jobs.store.video, asked.video.id, owner_of(request))
            asset = await run_in_threadpool(lambda: jobs.assets.keep(jobs.files.mp4(row)))
    _check_is_video(asset)
    opening = Open(
        prompt=asked.prompt, seed=_seed(asked, row), source=VideoRequest(asset=asset.id), strength=asked.strength
    )
    return await _started(request, jobs.planner.edit(opening, asset.seconds), asked)


@router.post(
    "/extensions",
    openapi_extra=body_of(
        Extend, {"prompt": "night falls", "video": {"id": "video_0123456789abcdefghijklmn"}, "seconds": "4"}
    ),
)
async def extend(request: Request) -> dict[str, object]:
    """Start a video that continues an uploaded one, or that is a longer version of one of this server."""
    jobs = _jobs(request)
    async with Form(request) as fields:
        asked = checked(Extend, fields)
        if isinstance(asked.video, Existing):
            row = await run_in_threadpool(jobs.store.video, asked.video.id, owner_of(request))
            return await _started(request, jobs.planner.extend(row, asked.prompt, asked.seconds), asked)
        asset = await jobs.assets.receive(pieces_of(asked.video))
    _check_is_video(asset)
    opening = Open(prompt=asked.prompt, seed=_seed(asked), clip=asset.id)
    return await _started(request, jobs.planner.create(opening, asked.seconds), asked)


@router.get("/characters")
@router.post("/characters")
@router.get("/characters/{character_id}")
def characters() -> None:
    """Refuse the request: characters are not supported."""
    raise UnsupportedError("characters are not offered here; describe who appears in the prompt, or give a picture")


@router.get("/{video_id}")
def one(request: Request, response: Response, video_id: str) -> dict[str, object]:
    """Return the state of a video."""
    row = _row(request, video_id)
    if row.status in UNFINISHED:
        response.headers["openai-poll-after-ms"] = POLL_AFTER_MS
    return shown(row, request)


@router.delete("/{video_id}")
def forget(request: Request, video_id: str) -> dict[str, object]:
    """End a video and delete it."""
    _jobs(request).delete(_row(request, video_id))
    return {"id": video_id, "object": "video.deleted", "deleted": True}


@router.get("/{video_id}/content")
async def content(
    request: Request, video_id: str, variant: Literal["video", "thumbnail", "spritesheet"] = "video"
) -> Response:
    """Return the mp4, which grows while the video is generated, or a picture of it."""
    jobs, row = _jobs(request), await run_in_threadpool(_row, request, video_id)
    if variant == "thumbnail":
        return FileResponse(await run_in_threadpool(jobs.files.thumbnail, row), headers=IMMUTABLE)
    if variant == "spritesheet":
        return FileResponse(await run_in_threadpool(jobs.files.spritesheet, row), headers=IMMUTABLE)
    if row.status in UNFINISHED:
        stop = threading.Event()
        pieces = jobs.growing(row, stop)
        if pieces is not None:
            if jobs.streams.available_tokens < 1:
                raise BusyError("too many videos are being watched while they are made; try again later")
            headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
            return StreamingResponse(_sent(pieces, stop, jobs.streams), media_type="video/mp4", headers=headers)
        row = await run_in_threadpool(_row, request, video_id)  # it has just been finished
    etag = f'"{row.id}"'
    headers = {**IMMUTABLE, "ETag": etag}
    path = jobs.files.mp4(row)
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return FileResponse(path, media_type="video/mp4", headers=headers)


@router.post("/{video_id}/remix", openapi_extra=body_of(Remix, {"prompt": "a tiger hops", "from_chunk": 2}))
async def remix(request: Request, video_id: str) -> dict[str, object]:
    """Start a video that shares the first `from_chunk` chunks (default 0) of another one."""
    jobs, row = _jobs(request), await run_in_threadpool(_row, request, video_id)
    async with Form(request) as fields:
        asked = checked(Remix, fields)
    return await _started(
        request, jobs.planner.remix(row, asked.prompt, from_chunk=asked.from_chunk, seed=asked.seed), asked
    )


def shown(row: VideoRow, request: Request) -> dict[str, object]:
    """Convert a video to OpenAI's format, with the additional fields `seed`, `fps` and `stream_url`."""
    return {
        "id": row.id,
        "object": "video",
        "created_at": row.created_at,
        "completed_at": row.completed_at,
        "expires_at": row.expires_at,
        "error": None if row.error is None else {"code": "generation_failed", "message": row.error},
        "metadata": row.request.get("metadata", {}),
        "model": row.model,
        "progress": row.progress,
        "prompt": row.prompt,
        "remixed_from_video_id": row.remixed_from,
        "seconds": row.seconds,
        "size": row.size,
        "status": row.status,
        "seed": row.seed,
        "fps": _jobs(request).host.about.fps,
        "stream_url": f"{request.scope.get('root_path', '')}/v1/videos/{row.id}/content",
    }


def _jobs(request: Request) -> Jobs:
    return request.app.state.jobs


async def _started(request: Request, video: NewVideo, asked: Body) -> dict[str, object]:
    return shown(await run_in_threadpool(_jobs(request).start, video, key_of(request), asked.metadata), request)


def _row(request: Request, video_id: str) -> VideoRow:
    return _jobs(request).store.video(video_id, owner_of(request))


def _seed(asked: Body, row: VideoRow | None = None) -> int:
    if asked.seed is not None:
        return asked.seed
    return random_seed() if row is None else row.seed


def _check_can_be(jobs: Jobs, asked: Create) -> None:
    if asked.model not in (None, jobs.host.about.model) and not str(asked.model).startswith("sora-"):
        raise InputError(f'the model here is "{jobs.host.about.model}", got "{asked.model}"')
    if asked.size not in (None, str(jobs.host.about.size)):
        raise InputError(f'the model here makes videos of size "{jobs.host.about.size}", got "{asked.size}"')


def _check_is_video(asset: Asset) -> None:
    if asset.kind != "video":
        raise InputError("expected a video, got a picture; give it as input_reference to begin with it")


async def _picture(jobs: Jobs, given: UploadFile | Picture) -> str:
    """Return the asset id of the picture that a video begins with; store the picture if it is new.

    Raises:
        InputError: it cannot be read, or is not a picture.
    """
    if isinstance(given, Picture) and given.file_id is not None:
        return jobs.assets.path_of(given.file_id, "image").stem
    pieces = pieces_of(given) if isinstance(given, UploadFile) else _data(given.image_url or "")
    asset = await jobs.assets.receive(pieces)
    if asset.kind != "image":
        raise InputError("input_reference must be a picture; use /v1/videos/extensions to go on from a video")
    return asset.id


async def _data(url: str) -> AsyncIterator[bytes]:
    """Yield the bytes of a data URL. Other URLs are refused: a server must not fetch what its clients name."""
    head, _, text = url.partition(",")
    if not (head.startswith("data:image/") and head.endswith(";base64")):
        raise InputError("image_url must be a data URL: data:image/png;base64,...")
    try:
        yield base64.b64decode(text, validate=True)
    except ValueError as error:
        raise InputError("the data URL is no base64") from error


async def _sent(pieces: Iterator[bytes], stop: threading.Event, limiter: CapacityLimiter) -> AsyncIterator[bytes]:
    """Yield the pieces, each awaited in a thread; set `stop` at the end or when the client disconnects."""

    async def following() -> bytes | None:
        return await to_thread.run_sync(next, pieces, None, abandon_on_cancel=True, limiter=limiter)

    try:
        while (piece := await following()) is not None:
            yield piece
    finally:
        stop.set()

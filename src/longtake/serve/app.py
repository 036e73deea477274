"""The server application: it combines hosts, jobs, routes and the page."""

import asyncio
import logging
import mimetypes
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool

from longtake.core.limits import MAX_PROMPT_CHARACTERS
from longtake.core.version import __version__
from longtake.serve.assets import Assets, find_asset
from longtake.serve.assets import router as assets
from longtake.serve.errors import HANDLERS
from longtake.serve.fleet import router as fleet
from longtake.serve.guard import AccessPolicy, Guard
from longtake.serve.host import SessionHost
from longtake.serve.jobs import Jobs
from longtake.serve.lock import FolderLock
from longtake.serve.messages import VERSION
from longtake.serve.metrics import Metrics
from longtake.serve.models import router as models
from longtake.serve.plans import Planner
from longtake.serve.retention import Retention, delete_outdated
from longtake.serve.schedule import LEAD, DeviceLimits
from longtake.serve.store import DATABASE, Store
from longtake.serve.takes import router as takes
from longtake.serve.videos import router as videos
from longtake.serve.worker import Worker, WorkerConfig
from longtake.studio.studio import Studio, open_studio
from longtake.weights.live_loras import LoraChoice
from longtake.worlds.config import WorldConfig

EXAMPLES = (
    "a sailboat sails on the sea",
    "a tiger walks through a forest",
    "a red car drives to the left in the desert",
    "an elephant walks right on a city street",
    "a balloon rises over the desert, then night falls",
    "a penguin hops in a park, then snow starts to fall",
)


MAX_EXPORTS = 2  # exports made at the same time; they must not take the threads of commands


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Settings of a server."""

    folder: Path  # where takes, videos and uploads are kept
    model: str = "tiny-world"
    devices: Sequence[str | None] = (None,)  # None: the first GPU if there is one
    fp8: bool = False  # see `longtake.open`
    compiled: bool = False
    loras: Mapping[str, LoraChoice] = field(default_factory=dict[str, LoraChoice])
    access: AccessPolicy = field(default_factory=AccessPolicy)
    retention: Retention = field(default_factory=Retention)
    limits: DeviceLimits = field(default_factory=DeviceLimits)  # limits that hold for each worker
    ray: str | None = None  # address of a Ray cluster; "auto": a Ray of this server; None: that, if it needs workers
    workers: int | None = None  # number of Ray workers; None: as suits the cluster
    max_video_s: float = 120.0  # maximum length of a job's video


page = APIRouter()
logger = logging.getLogger("longtake.serve")


def create_app(settings: ServerSettings, opener: Callable[..., Studio] = open_studio) -> FastAPI:
    """Create the application.

    Args:
        settings: the server's settings.
        opener: opens the studio when the application starts; called like `open_studio`.

    Raises:
        InputError: the folder cannot be written, or another version of longtake wrote it.
    """
    store, metrics = Store(settings.folder / DATABASE), Metrics()
    app = FastAPI(
        title="longtake",
        version=__version__,
        description="Video that streams while it is imagined.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load scripts from other hosts; `docs` below serves /docs
        redoc_url=None,
        exception_handlers=HANDLERS,
    )
    app.state.settings, app.state.opener, app.state.store, app.state.metrics = settings, opener, store, metrics
    app.state.started_at = int(time.time())
    app.add_middleware(Guard, access=settings.access, store=store, metrics=metrics)
    for router in (takes, assets, videos, models, fleet, page):
        app.include_router(router)
    # some systems register another type for .js, and browsers refuse such modules
    mimetypes.add_type("text/javascript", ".js")
    app.mount("/page", StaticFiles(packages=[("longtake.serve", "page")]), name="page")
    return app


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the model, restart unfinished videos, and close everything at the end."""
    settings: ServerSettings = app.state.settings
    async with AsyncExitStack() as stack:
        stack.callback(app.state.store.close)
        stack.callback(FolderLock(settings.folder).release)
        app.state.exports = CapacityLimiter(MAX_EXPORTS)
        host = await run_in_threadpool(stack.enter_context, open_host(settings, app.state.opener, app.state.metrics))
        uploads = Assets(settings.folder / "assets", size=host.about.size, fps=host.about.fps)
        jobs = Jobs(
            host,
            app.state.store,
            uploads,
            settings.folder / "videos",
            planner=Planner(host.about.clock, settings.max_video_s),
            metrics=app.state.metrics,
        )
        stack.push_async_callback(run_in_threadpool, jobs.close)
        app.state.host, app.state.assets, app.state.jobs = host, uploads, jobs
        await run_in_threadpool(jobs.resume)
        sweeping = asyncio.create_task(_sweep_hourly(jobs, settings.retention))
        stack.callback(sweeping.cancel)
        yield


@contextmanager
def open_host(settings: ServerSettings, opener: Callable[..., Studio], metrics: Metrics) -> Iterator[SessionHost]:
    """Open the workers: one in this process, or several as Ray actors.

    Raises:
        LongtakeError: the model cannot be opened on one of them, or the Ray cluster cannot be joined.
    """
    config = WorkerConfig(
        opener=opener,
        model=settings.model,
        device=settings.devices[0],
        fp8=settings.fp8,
        compiled=settings.compiled,
        loras=settings.loras,
        limits=settings.limits,
    )
    host = SessionHost(settings.folder / "takes", metrics)
    uploads = settings.folder / "assets"
    with ExitStack() as stack:
        if settings.ray is not None or settings.workers is not None or len(settings.devices) > 1:
            from longtake.serve.supervision import FleetPlan, open_fleet  # noqa: PLC0415  (Ray need not be installed)

            devices = [device for device in settings.devices if device is not None]
            plan = FleetPlan(address=settings.ray or "auto", num_workers=settings.workers, devices=devices)
            stack.enter_context(open_fleet(plan, config, host, partial(find_asset, uploads)))
        else:
            studio = stack.enter_context(config.open())
            add_local_worker(host, studio, uploads, config.limits)
            stack.callback(host.close)
        host.restore()
        yield host


def add_local_worker(host: SessionHost, studio: Studio, uploads: Path, limits: DeviceLimits) -> None:
    """Add a worker of this process to a host, which closes it, but not the studio.

    Args:
        host: the server's sessions.
        studio: the model.
        uploads: folder of the server's uploads.
        limits: how many sessions run, wait and share a step.
    """
    asset = partial(find_asset, uploads)
    worker = Worker(studio, "w0", asset, lambda event: host.receive(worker, event), limits=limits)
    host.add(worker)


async def _sweep_hourly(jobs: Jobs, retention: Retention) -> None:
    """Remove old uploads, takes and videos, at the start and every hour."""
    while True:
        for sweep in (lambda: jobs.assets.sweep(jobs.assets_in_use()), partial(delete_outdated, retention, jobs)):
            try:
                await run_in_threadpool(sweep)
            except Exception:  # the next round tries again
                logger.exception("old files could not be removed")
        await asyncio.sleep(3600)


@page.get("/", include_in_schema=False)
def index() -> FileResponse:
    """Serve the studio page."""
    return FileResponse(str(files("longtake.serve") / "page" / "index.html"), headers={"Cache-Control": "no-cache"})


@page.get("/docs", include_in_schema=False)
def docs() -> FileResponse:
    """Serve the API reference as a page."""
    return FileResponse(str(files("longtake.serve") / "page" / "docs.html"), headers={"Cache-Control": "no-cache"})


@page.get("/api/about")
def about(request: Request) -> dict[str, object]:
    """Return the server's versions, model, sizes, examples and games."""
    host: SessionHost = request.app.state.host
    world = WorldConfig.small()
    return {
        "version": __version__,
        "protocol": VERSION,
        "model": host.about.model,
        "width": host.about.size.width,
        "height": host.about.size.height,
        "fps": host.about.fps,
        "chunk_frames": host.about.clock.chunk_frames,
        "lead": LEAD,
        "strength": host.about.strength,
        "loras": host.about.loras,
        "examples": EXAMPLES,
        "game": {"subjects": world.subjects, "places": world.places},
    }


@page.get("/api/words")
def words(request: Request, prompt: Annotated[str, Query(max_length=MAX_PROMPT_CHARACTERS)] = "") -> dict[str, object]:
    """Return the words that the model was trained on, by kind, and the words of a prompt that are not among them.

    Unknown words are only reported: a prompt with unknown words is accepted.
    """
    host: SessionHost = request.app.state.host
    known = {} if host.about.vocabulary is None else host.about.vocabulary.groups
    return {"known": known, "unknown": [asdict(word) for word in host.unknown_words(prompt)]}


@page.get("/healthz")
def healthz() -> dict[str, str]:
    """Report that the process is alive."""
    return {"status": "ok"}


@page.get("/readyz")
def readyz(request: Request) -> Response:
    """Report whether chunks can be generated, and the workers; 503 if none is left."""
    host: SessionHost = request.app.state.host
    workers = host.states()
    ready = any(worker.state == "ready" for worker in workers)
    body = {
        "status": "ready" if ready else "the makers of chunks have stopped",
        "stopped": [worker.name for worker in workers if worker.state == "lost"],
        "workers": {worker.name: worker.state for worker in workers},
    }
    return JSONResponse(body, 200 if ready else 503)


@page.get("/metrics", include_in_schema=False)
def metrics(request: Request) -> Response:
    """Serve the metrics in the text format of Prometheus."""
    return request.app.state.metrics.page()

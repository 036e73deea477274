"""A server for tests: the real routes and the real host, on a model with random weights."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI
from PIL import Image

from longtake.serve import assets, videos
from longtake.serve.assets import Assets
from longtake.serve.errors import HANDLERS
from longtake.serve.guard import Door, Guard
from longtake.serve.jobs import Jobs
from longtake.serve.local import LocalHost
from longtake.serve.metrics import Metrics
from longtake.serve.store import Store
from longtake.studio.studio import Studio


class Server:
    """All parts of a server, joined as the application joins them."""

    def __init__(self, studio: Studio, folder: Path, *, keys_required: bool = False) -> None:
        self.store = Store(folder / "store.db")
        self.assets = Assets(folder / "assets", size=studio.size, fps=studio.fps, max_seconds=5.0)
        self.metrics = Metrics()
        self.host = LocalHost(studio, folder / "takes", self.assets.path_of, metrics=self.metrics)
        self.jobs = Jobs(
            self.host, self.store, self.assets, folder / "videos", clock=studio.clock, metrics=self.metrics
        )
        self.app = FastAPI(exception_handlers=HANDLERS)
        self.app.state.store, self.app.state.assets = self.store, self.assets
        self.app.state.metrics, self.app.state.jobs = self.metrics, self.jobs
        for router in (assets.router, videos.router):
            self.app.include_router(router)
        self.app.add_api_route("/metrics", self.metrics.page)
        door = Door(names=("testserver",), keys_required=keys_required)
        self.app.add_middleware(Guard, door=door, store=self.store, metrics=self.metrics)
        self.jobs.resume()

    def close(self) -> None:
        self.jobs.close()
        self.host.close()
        self.store.close()


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """Its address, while a thread of this process serves it."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="warning", ws_per_message_deflate=False, timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def noise(width: int = 64, height: int = 48) -> Image.Image:
    rng = torch.Generator().manual_seed(0)
    return Image.fromarray(torch.randint(0, 256, (height, width, 3), generator=rng, dtype=torch.uint8).numpy())

"""A server for tests: the real routes and the real host, on a model with random weights."""

import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from PIL import Image

from longtake.serve import assets, videos
from longtake.serve.app import add_local_worker
from longtake.serve.assets import Assets
from longtake.serve.connections import server_config
from longtake.serve.errors import HANDLERS
from longtake.serve.guard import AccessPolicy, Guard
from longtake.serve.host import SessionHost
from longtake.serve.jobs import Jobs
from longtake.serve.messages import events
from longtake.serve.metrics import Metrics
from longtake.serve.plans import Planner
from longtake.serve.schedule import DeviceLimits
from longtake.serve.store import Store
from longtake.studio.studio import Studio


class Server:
    """All parts of a server, joined as the application joins them."""

    def __init__(self, studio: Studio, folder: Path, *, keys_required: bool = False) -> None:
        self.store = Store(folder / "store.db")
        self.assets = Assets(folder / "assets", size=studio.size, fps=studio.fps, max_seconds=5.0)
        self.metrics = Metrics()
        self.host = SessionHost(folder / "takes", self.metrics)
        add_local_worker(self.host, studio, self.assets.folder, DeviceLimits())
        self.host.restore()
        planner = Planner(studio.clock, max_seconds=120.0)
        self.jobs = Jobs(self.host, self.store, self.assets, folder / "videos", planner=planner, metrics=self.metrics)
        self.app = FastAPI(exception_handlers=HANDLERS)
        self.app.state.store, self.app.state.assets = self.store, self.assets
        self.app.state.metrics, self.app.state.jobs = self.metrics, self.jobs
        for router in (assets.router, videos.router):
            self.app.include_router(router)
        self.app.add_api_route("/metrics", self.metrics.page)
        access = AccessPolicy(names=("testserver",), keys_required=keys_required)
        self.app.add_middleware(Guard, access=access, store=self.store, metrics=self.metrics)
        self.jobs.resume()

    def close(self) -> None:
        self.jobs.close()
        self.host.close()
        self.store.close()


@contextmanager
def listening(app: FastAPI, root_path: str = "") -> Iterator[str]:
    """Its address, while a thread of this process serves it."""
    config = server_config(app, root_path=root_path)
    config.timeout_graceful_shutdown = 1
    server = uvicorn.Server(config)
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


class Watcher:
    """A viewer who notes all that comes."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.entries: list[dict[str, Any]] = []
        self.frames: dict[tuple[int, int], bytes] = {}
        self.others: list[dict[str, Any]] = []
        self.shown: int | None = None  # chunk that `show` put on the screen last

    def next(self) -> dict[str, Any]:
        message = self.socket.receive()
        if (data := message.get("bytes")) is not None:
            length = struct.unpack_from("<I", data)[0]
            event = events.validate_json(data[4 : 4 + length]).model_dump()
            self.frames[event["chunk"], event["k"]] = data[4 + length :]
        else:
            event = events.validate_json(message["text"]).model_dump()
        (self.entries if "n" in event else self.others).append(event)
        return event

    @property
    def status(self) -> dict[str, Any]:
        return [e for e in self.others if e["type"] == "status"][-1]

    def until(self, kind: str, *, shows: bool = False, **wanted: Any) -> dict[str, Any]:
        """Wait for an event; with `shows`, each whole chunk is put on the screen meanwhile: otherwise none is made."""
        for _ in range(500):
            if shows:
                self.show()
            event = self.next()
            if event["type"] == kind and all(event[k] == v for k, v in wanted.items()):
                return event
        raise AssertionError(f"no {kind} came")

    def show(self) -> None:
        """Put the newest whole chunk on the screen, if it is not there."""
        whole = [
            e["chunk"]
            for e in self.entries
            if e["type"] == "chunk" and (e["chunk"], e["num_frames"] - 1) in self.frames
        ]
        if whole and whole[-1] != self.shown:
            self.shown = whole[-1]
            self.say(type="seen", chunk=self.shown)

    def has_frame(self, chunk: int, k: int) -> None:
        """Wait for a frame, if it has not come."""
        if (chunk, k) not in self.frames:
            self.until("frame", chunk=chunk, k=k)

    def say(self, **command: Any) -> None:
        self.socket.send_json(command)

    def whole_chunk(self, chunk: int) -> dict[str, Any]:
        """Wait for a chunk and its last frame, and put it on the screen."""
        found = next((e for e in self.entries if e["type"] == "chunk" and e["chunk"] == chunk), None)
        event = found or self.until("chunk", chunk=chunk)
        self.has_frame(chunk, event["num_frames"] - 1)
        self.say(type="seen", chunk=chunk)
        return event


def noise(width: int = 64, height: int = 48) -> Image.Image:
    rng = torch.Generator().manual_seed(0)
    return Image.fromarray(torch.randint(0, 256, (height, width, 3), generator=rng, dtype=torch.uint8).numpy())

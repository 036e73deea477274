"""Workers as Ray actors: on this machine, where Ray is started for this server, or on those of a cluster.

An actor holds a `Worker` and a queue of its events, which the server fetches. The server calls its methods through
`RayWorker`. When an actor dies, its sessions go on elsewhere (`SessionHost.lost`), and another actor takes its place.
"""

import logging
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Concatenate, ParamSpec, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from longtake.core.cluster import fetched
from longtake.sample.words import UnknownWord
from longtake.serve.errors import LostError, NotFoundError
from longtake.serve.handover import Handover, WorkerEvent, WorkerInfo, WorkerLoad
from longtake.serve.messages import Command, CueCommand, Event, VideoRequest
from longtake.serve.viewers import Viewer
from longtake.serve.worker import Worker, WorkerConfig

MAX_QUEUED_EVENTS = 4096  # back pressure: generation blocks when the server stops reading
NUM_THREADS = 64  # calls to an actor that run at the same time
WAIT_NOTICE_S = 30.0

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger("longtake.serve")


class WorkerActor:
    """The actor: a worker, the events that the server has not fetched, and copies of the uploads that it needs."""

    def __init__(self) -> None:
        self._events: Queue[WorkerEvent] = Queue(MAX_QUEUED_EVENTS)
        self._folder = tempfile.TemporaryDirectory(prefix="longtake-uploads-")

    def begin(self, name: str, config: WorkerConfig) -> WorkerInfo:
        """Open the model. Raises as `WorkerConfig.open`."""
        self._studio = config.open()
        self._worker = Worker(
            self._studio, name, self._path_of, self._events.put, limits=config.limits, whole_chunks=True
        )
        return self._worker.about

    def ask(self, method: str, args: tuple[Any, ...]) -> Any:
        """Call a method of the worker; see `RayWorker._ask`."""
        return getattr(self._worker, method)(*args)

    def store(self, name: str, data: bytes) -> None:
        """Store the file of an upload."""
        (Path(self._folder.name) / name).write_bytes(data)

    def events(self) -> list[WorkerEvent]:
        """Wait up to a second for events, and return all that are queued. A worker that has failed ends its process."""
        found: list[WorkerEvent] = []
        with suppress(Empty):
            found.append(self._events.get(timeout=1.0))
            while True:
                found.append(self._events.get_nowait())
        if not self._worker.is_alive:
            os._exit(1)
        return found

    def close(self) -> None:
        """Stop the worker and remove its files."""
        self._worker.close()
        self._studio.close()
        self._folder.cleanup()

    def _path_of(self, asset_id: str) -> Path:
        path = next(Path(self._folder.name).glob(f"{asset_id}.*"), None)
        if path is None:
            raise NotFoundError(f"there is no upload {asset_id}")
        return path


class RayWorker:
    """A worker in an actor; implements `workers.WorkerClient`."""

    def __init__(self, name: str, config: WorkerConfig, actor: Any, asset: Callable[[str], Path]) -> None:
        """Wait until the actor has opened its model.

        Raises:
            LostError: the actor cannot be started.
            LongtakeError: the model cannot be opened.
        """
        self.name = name
        self._actor = actor
        self._asset = asset
        self._stored: set[str] = set()
        self._lost = False
        opening = actor.begin.remote(name, config)
        while not ray.wait([opening], timeout=WAIT_NOTICE_S)[0]:
            logger.warning("worker %s has not started yet; has the cluster the cores or GPUs for it?", name)
        self.about: WorkerInfo = self._get(opening)

    def unknown_words(self, prompt: str) -> tuple[UnknownWord, ...]:
        return self._ask(Worker.unknown_words, prompt)

    def open(self, handover: Handover) -> None:
        self._store_uploads(handover)
        self._ask(Worker.open, handover)

    def adopt(self, handover: Handover) -> None:
        self._store_uploads(handover)
        self._ask(Worker.adopt, handover)

    def do(self, session_id: str, command: Command, viewer: Viewer | None) -> Event:
        if isinstance(command, CueCommand) and command.image is not None:
            self._store(command.image)
        return self._ask(Worker.do, session_id, command, viewer)

    def push(self, session_id: str, picture: bytes) -> None:
        self._ask(Worker.push, session_id, picture)

    def watched(self, session_id: str, viewer: Viewer) -> None:
        self._ask(Worker.watched, session_id, viewer)

    def left(self, session_id: str, viewer: Viewer) -> None:
        self._ask(Worker.left, session_id, viewer)

    def has_memory(self, session_id: str) -> bool:
        return self._ask(Worker.has_memory, session_id)

    def surrender(self, session_id: str) -> int:
        return self._ask(Worker.surrender, session_id)

    def forget(self, session_id: str) -> None:
        self._ask(Worker.forget, session_id)

    def load(self) -> WorkerLoad:
        return self._ask(Worker.load)

    @property
    def is_alive(self) -> bool:
        return not self._lost

    def events(self) -> list[WorkerEvent]:
        """The next events, in order.

        Raises:
            LostError: the actor has died; all events that it had sent were returned.
        """
        return self._get(self._actor.events.remote())

    def close(self) -> None:
        with suppress(LostError):
            self._get(self._actor.close.remote(), timeout_s=10.0)
        ray.kill(self._actor)

    def _store_uploads(self, handover: Handover) -> None:
        """Copy the uploads that a session begins with; its script has them, once there is one."""
        opening = handover.facts.opening
        if handover.scripts[-1] is None:
            source = opening.source.asset if isinstance(opening.source, VideoRequest) else None
            for asset_id in (opening.image, opening.clip, source):
                if asset_id is not None:
                    self._store(asset_id)

    def _store(self, asset_id: str) -> None:
        if asset_id not in self._stored:
            path = self._asset(asset_id)
            self._get(self._actor.store.remote(path.name, path.read_bytes()))
            self._stored.add(asset_id)

    def _ask(self, method: Callable[Concatenate[Worker, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a method of the actor's worker, which takes no keyword arguments."""
        assert not kwargs
        return self._get(self._actor.ask.remote(method.__name__, args))

    def _get(self, reference: Any, timeout_s: float | None = None) -> Any:
        """Result of a call.

        Raises:
            LostError: the actor is lost.
            LongtakeError: the method's own errors.
        """
        try:
            return fetched(reference, timeout_s)
        except RayTaskError:
            raise
        except RayError as error:
            self._lost = True
            raise LostError(f"worker {self.name} is lost") from error

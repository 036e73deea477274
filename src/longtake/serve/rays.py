"""Workers as Ray actors: on this machine, where Ray is started for this server, or on those of a cluster.

An actor holds a `Worker` and a queue of its events, which the server fetches. The server calls its methods through
`RayWorker`. When an actor dies, its sessions go on elsewhere (`SessionHost.lost`), and another actor takes its place.
"""

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, Queue
from threading import Event as Signal
from threading import Thread
from typing import Any, Concatenate, ParamSpec, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from longtake.core.errors import InputError, LongtakeError, MediaError
from longtake.sample.words import UnknownWord
from longtake.serve.errors import LostError, NotFoundError
from longtake.serve.handover import Entries, Handover, WorkerEvent, WorkerInfo, WorkerLoad
from longtake.serve.host import SessionHost
from longtake.serve.messages import Command, CueCommand, Event, VideoRequest
from longtake.serve.viewers import Viewer
from longtake.serve.worker import Worker, WorkerConfig

MAX_QUEUED_EVENTS = 4096  # back pressure: generation blocks when the server stops reading
NUM_THREADS = 64  # calls to an actor that run at the same time
OBJECT_STORE_BYTES = 256 * 1024**2  # of a Ray that is started here; entries are small
RESTART_S = 2.0  # pause before a worker that could not be started is tried again
WAIT_NOTICE_S = 30.0
BALANCE_S = 0.25  # seconds between rounds of load balancing

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
            return ray.get(reference, timeout=timeout_s)
        except RayTaskError as error:
            if isinstance(error.cause, LongtakeError):
                raise error.cause from None
            raise
        except RayError as error:
            self._lost = True
            raise LostError(f"worker {self.name} is lost") from error


@dataclass(frozen=True, kw_only=True)
class FleetPlan:
    """What Ray is asked for."""

    address: str  # of the cluster; "auto": a Ray of this server's own
    num_workers: int | None  # None: one a GPU of the cluster, or one a machine if it has none
    devices: Sequence[str]  # a worker for each; empty: a GPU each, or a share of the cores


@dataclass(frozen=True)
class Slot:
    """Place of a worker: its name, its settings and what Ray reserves for it."""

    name: str
    config: WorkerConfig
    num_cpus: float
    num_gpus: int


@contextmanager
def open_fleet(
    plan: FleetPlan, config: WorkerConfig, host: SessionHost, asset: Callable[[str], Path]
) -> Iterator[None]:
    """Start or join Ray, add its workers to the host, and replace those that die.

    Raises:
        InputError: the cluster cannot be joined.
        LongtakeError: the model cannot be opened on one of the workers.
    """
    with _connected(plan.address):
        slots = _slots(plan, config)
        over = Signal()
        with ThreadPoolExecutor(len(slots)) as pool:
            starting = [pool.submit(_start, slot, asset) for slot in slots]
        try:
            workers = [one.result() for one in starting]
        except LostError as error:
            raise InputError(f"a worker could not be started: {error.__cause__}") from error
        threads = [Thread(target=_balance, args=(host, over), name="longtake-balance", daemon=True)]
        for slot, worker in zip(slots, workers, strict=True):
            host.add(worker)
            threads.append(Thread(target=_follow, args=(slot, worker, host, asset, over), name=f"longtake-{slot.name}"))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            host.close()
            for thread in threads:
                thread.join()


def _start(slot: Slot, asset: Callable[[str], Path]) -> RayWorker:
    """Start a worker. Raises as `RayWorker`."""
    # without a GPU of its own from Ray, a worker sees those that its --device names
    environment = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    actor = ray.remote(WorkerActor).options(
        num_cpus=slot.num_cpus,
        num_gpus=slot.num_gpus,
        max_concurrency=NUM_THREADS,
        scheduling_strategy="SPREAD",
        runtime_env={"env_vars": environment},
    )
    return RayWorker(slot.name, slot.config, actor.remote(), asset)


def _follow(slot: Slot, worker: RayWorker, host: SessionHost, asset: Callable[[str], Path], over: Signal) -> None:
    """Dispatch a worker's events; when it is lost, start another one in its place, until all is over."""
    while not over.is_set():
        try:
            for event in worker.events():
                _dispatch(worker, event, host)
        except LostError:
            if over.is_set() or not host.lost(worker):
                return
            logger.warning("worker %s is lost; another one is started", slot.name)
            started = None
            while started is None and not over.is_set():
                try:
                    started = _start(slot, asset)
                except LongtakeError:
                    logger.exception("worker %s cannot be started", slot.name)
                    over.wait(RESTART_S)
            if started is not None:
                worker = started
                host.add(worker)


def _dispatch(worker: RayWorker, event: WorkerEvent, host: SessionHost) -> None:
    try:
        host.receive(worker, event)
    except MediaError:
        logger.exception("log entries could not be stored")
        assert isinstance(event, Entries)
        worker.forget(event.session_id)
    except Exception:  # an error in one listener must not stop the dispatch
        logger.exception("an event could not be dispatched")


def _balance(host: SessionHost, over: Signal) -> None:
    while not over.wait(BALANCE_S):
        try:
            host.balance()
        except Exception:  # the next round tries again
            logger.exception("those who wait could not be divided among the workers")


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Keep a connection to Ray, in a thread of its own: what Ray starts ends with the thread that started it."""
    ready, over, failed = Signal(), Signal(), []

    def run() -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        try:
            if address == "auto":
                ray.init(
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    _node_ip_address="127.0.0.1",
                    logging_level=logging.ERROR,
                    namespace="longtake",
                )
            else:
                ray.init(address=address, logging_level=logging.ERROR, namespace="longtake")
        except (RayError, OSError, RuntimeError, ValueError) as error:  # told to the thread that waits
            failed.append(error)
        ready.set()
        over.wait()
        ray.shutdown()

    thread = Thread(target=run, name="longtake-ray", daemon=True)
    thread.start()
    ready.wait()
    try:
        if failed:
            raise InputError(f"cannot use Ray at {address}: {failed[0]}") from failed[0]
        yield
    finally:
        over.set()
        thread.join()


def _slots(plan: FleetPlan, config: WorkerConfig) -> list[Slot]:
    """Workers of a plan: a GPU each where the cluster has any and no device is named, else a share of the cores."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = ([node.get(kind, 0.0) for node in nodes] for kind in ("CPU", "GPU"))
    if plan.devices:
        share = cpu_share(cpus, len(plan.devices))
        return [Slot(f"w{i}", replace(config, device=device), share, 0) for i, device in enumerate(plan.devices)]
    num = plan.num_workers or int(sum(gpus)) or len(nodes)
    if sum(gpus):
        return [Slot(f"w{i}", config, 1, 1) for i in range(num)]
    return [Slot(f"w{i}", replace(config, device="cpu"), cpu_share(cpus, num), 0) for i in range(num)]


def cpu_share(cpus: Sequence[float], num_workers: int) -> float:
    """Cores for each of several workers on machines with so many cores; whole ones, as Ray wants, if above 1."""
    share = min(sum(cpus) / num_workers, *cpus)
    return float(int(share)) if share >= 1 else share

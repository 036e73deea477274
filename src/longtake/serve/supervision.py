"""A server's Ray: it is started or joined, workers are started on it, followed, and replaced when they die."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event as Signal
from threading import Thread

import ray

from longtake.core.cluster import connected, cpu_share, resources
from longtake.core.errors import InputError, LongtakeError, MediaError
from longtake.serve.errors import LostError
from longtake.serve.handover import Entries, WorkerEvent
from longtake.serve.host import SessionHost
from longtake.serve.rays import NUM_THREADS, RayWorker, WorkerActor
from longtake.serve.worker import WorkerConfig

BALANCE_S = 0.25  # seconds between rounds of load balancing
RESTART_S = 2.0  # pause before a worker that could not be started is tried again

logger = logging.getLogger("longtake.serve")


@dataclass(frozen=True, kw_only=True)
class FleetPlan:
    """What Ray is asked for."""

    address: str  # address of the cluster; "auto": start a Ray for this server alone
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
    with connected(plan.address):
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


def _slots(plan: FleetPlan, config: WorkerConfig) -> list[Slot]:
    """Workers of a plan: a GPU each where the cluster has any and no device is named, else a share of the cores."""
    found = resources()
    if plan.devices:
        share = cpu_share(found.cpus, len(plan.devices))
        return [Slot(f"w{i}", replace(config, device=device), share, 0) for i, device in enumerate(plan.devices)]
    num = plan.num_workers or int(sum(found.gpus)) or len(found.cpus)
    if sum(found.gpus):
        return [Slot(f"w{i}", config, 1, 1) for i in range(num)]
    return [Slot(f"w{i}", replace(config, device="cpu"), cpu_share(found.cpus, num), 0) for i in range(num)]

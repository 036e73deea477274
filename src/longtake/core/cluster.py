"""Ray: a connection to a cluster or to one that is started here, and tasks that run on it."""

# Ray leaves many of its types unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from threading import Event as Signal
from threading import Thread
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from longtake.core.errors import InputError, LongtakeError
from longtake.core.tasks import AHEAD, Item, Result, Shared

OBJECT_STORE_BYTES = 256 * 1024**2  # memory for objects of a Ray that is started here


@contextmanager
def connected(address: str) -> Generator[None]:
    """Keep a connection to Ray, in a thread of its own: what Ray starts ends with the thread that started it.

    Args:
        address: of the cluster; "auto": start a Ray on this machine.

    Raises:
        InputError: the cluster cannot be joined, or Ray cannot be started.
    """
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


@dataclass(frozen=True)
class Resources:
    """Cores and GPUs of each machine of the cluster that has cores for tasks."""

    cpus: Sequence[float]
    gpus: Sequence[float]


def resources() -> Resources:
    """Resources of the machines that are there now. A head without cores for tasks is left out."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    return Resources(cpus=[node["CPU"] for node in nodes], gpus=[node.get("GPU", 0.0) for node in nodes])


def cpu_share(cpus: Sequence[float], num: int) -> float:
    """Cores for each of `num` workers on machines with `cpus` cores each; whole ones, as Ray wants, if above 1."""
    share = min(sum(cpus) / num, *cpus)
    return float(int(share)) if share >= 1 else share


@dataclass(frozen=True)
class RayTasks:
    """Tasks of the cluster that is connected. A task whose machine is lost runs again on another.

    Whole tasks have a GPU each if `device` is one; else as many cores as this process computes with, so that results
    are those of this process.
    """

    device: torch.device

    def map(
        self, make: Callable[[Shared, Item], Result], shared: Shared, items: Iterable[Item], *, whole: bool
    ) -> Generator[Result]:
        found = resources()
        num_gpus = int(whole and self.device.type == "cuda")
        if num_gpus and not sum(found.gpus):
            raise InputError("the cluster has no GPU; give --device cpu, or join one that has")
        cores = int(min(torch.get_num_threads(), *found.cpus)) if whole else 1
        if num_gpus:
            cores = max(1, int(cpu_share(found.cpus, int(sum(found.gpus)))))
        num = int(sum(found.gpus)) if num_gpus else sum(int(cpus // cores) for cpus in found.cpus)
        task = ray.remote(_run).options(num_cpus=cores, num_gpus=num_gpus)
        stored = ray.put((make, shared, cores))
        waiting = iter(items)
        running = deque(task.remote(stored, each) for each in islice(waiting, AHEAD * num))
        try:
            while running:
                yield _result(running.popleft())
                running.extend(task.remote(stored, each) for each in islice(waiting, 1))
        finally:
            for each in running:
                ray.cancel(each, force=True)


def _run(task: tuple[Callable[[Any, Any], Any], Any, int], item: Any) -> Any:
    """The task: runs in a process of the cluster."""
    make, shared, cores = task
    torch.set_flush_denormal(True)
    torch.set_num_threads(cores)
    return make(shared, item)


def _result(reference: Any) -> Any:
    """Result of a task.

    Raises:
        LongtakeError: the task's own errors, or the task was lost more often than Ray tries it.
    """
    try:
        return fetched(reference)
    except RayTaskError:
        raise
    except RayError as error:
        raise LongtakeError(f"a task of the cluster is lost: {error}") from error


def fetched(reference: Any, timeout_s: float | None = None) -> Any:
    """Result of a call on the cluster.

    Raises:
        LongtakeError: the call's own errors.
        RayTaskError: another error of the call.
        RayError: what it ran on is lost.
    """
    try:
        return ray.get(reference, timeout=timeout_s)
    except RayTaskError as error:
        if isinstance(error.cause, LongtakeError):
            raise error.cause from None
        raise

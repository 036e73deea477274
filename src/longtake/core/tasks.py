"""Independent computations, one after the other in this process or several at a time in processes of this machine.

`longtake.core.cluster` runs them on several machines.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch

from longtake.core.threads import computing_with

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 2  # tasks in flight for each that can run: results may be large, and their reader slower than the tasks


@runtime_checkable
class Tasks(Protocol):
    """Where tasks run. A task is a call of a function that other processes can import by its name."""

    @property
    def device(self) -> torch.device:
        """Device of this process for tasks that run in it, else of the process that runs a task."""
        ...

    def map(
        self, make: Callable[[Shared, Item], Result], shared: Shared, items: Iterable[Item], *, whole: bool
    ) -> Generator[Result]:
        """Yield `make(shared, item)` for each item, in order; few tasks are ahead of the one that is waited for.

        Args:
            make: function of a module, whose errors are raised here.
            shared: argument of all tasks, which each process receives once.
            items: one for each task.
            whole: whether a task has the device, or as many cores as this process computes with; if not, it has one.
                On a CPU, the result is the same wherever it runs.
        """
        ...


@dataclass(frozen=True)
class LocalTasks:
    """Tasks of this machine: whole ones run in this process, the others in up to `cores` processes."""

    device: torch.device
    cores: int = field(default_factory=lambda: os.cpu_count() or 1)

    def map(
        self, make: Callable[[Shared, Item], Result], shared: Shared, items: Iterable[Item], *, whole: bool
    ) -> Generator[Result]:
        if whole or self.cores == 1:
            for item in items:
                with computing_with(None if whole else 1):
                    result = make(shared, item)
                yield result
            return
        # "spawn": a forked child would inherit torch's threads in the middle of their work.
        pool = ProcessPoolExecutor(self.cores, get_context("spawn"), initializer=_begin, initargs=(make, shared))
        try:
            waiting = iter(items)
            running: deque[Future[Any]] = deque(
                pool.submit(_made, each) for each in islice(waiting, AHEAD * self.cores)
            )
            while running:
                yield running.popleft().result()
                running.extend(pool.submit(_made, each) for each in islice(waiting, 1))
        finally:
            pool.shutdown(cancel_futures=True)


_task: tuple[Callable[[Any, Any], Any], Any]  # function of a process's tasks, and the argument that they share


def _begin(make: Callable[[Any, Any], Any], shared: Any) -> None:
    """Prepare a process for its tasks."""
    global _task  # noqa: PLW0603  (a pool's processes keep state no other way)
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    _task = make, shared


def _made(item: Any) -> Any:
    make, shared = _task
    return make(shared, item)

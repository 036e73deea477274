"""Choice of the number of CPU threads by the load of other programs.

Threads of a matrix product wait for each other by spinning. If another program uses one of two cores, two threads
wait most of the time, and one thread is two to three times as fast as two.
"""

import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

STAT = Path("/proc/stat")  # Linux: CPU time per core since boot, in ticks
SHORTEST_S = 0.05  # shortest interval between measurements, well above the ticks of 10 ms
BUSY = 0.5  # load of other programs, in cores, at which one thread fewer is used


def compute_with(threads: int | None) -> None:
    """Set the number of threads that torch computes with on a CPU; None leaves it."""
    if threads is not None and threads != torch.get_num_threads():
        torch.set_num_threads(threads)


@contextmanager
def computing_with(threads: int | None) -> Generator[None]:
    """Context in which torch computes with so many threads on a CPU; None leaves their number."""
    before = torch.get_num_threads()
    compute_with(threads)
    try:
        yield
    finally:
        compute_with(before)


class ThreadBudget:
    """Number of threads to compute with, by the load of the cores since the last measurement.

    On systems without `/proc/stat` it is always `most`.
    """

    def __init__(self, most: int) -> None:
        """Start with `most` threads, the number for an idle machine."""
        self.most = most
        self._cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._threads = most
        self._last = self._now()

    def threads(self) -> int:
        """Number of threads for the next chunk: the free cores, at least 1 and at most `most`."""
        now = self._now()
        if now is None or self._last is None:
            return self.most
        wall_s, busy_s, own_s = (after - before for after, before in zip(now, self._last, strict=True))
        if wall_s >= SHORTEST_S:
            self._last = now
            others = max(0.0, (busy_s - own_s) / wall_s)
            free = self._cores - int(others + 1 - BUSY)
            self._threads = min(self.most, max(1, free))
        return self._threads

    def _now(self) -> tuple[float, float, float] | None:
        """Wall time, CPU time of all programs on this process's cores, and CPU time of this process, in seconds.

        None on systems without `/proc/stat`.
        """
        try:
            lines = STAT.read_text("ascii").splitlines()
        except OSError:
            return None
        own = os.sched_getaffinity(0)
        busy = 0
        for line in lines:
            name, *ticks = line.split()
            if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in own:
                idle = int(ticks[3]) + int(ticks[4])  # ticks idle, and ticks waiting for a disk
                busy += sum(map(int, ticks[:8])) - idle
        return time.monotonic(), busy / os.sysconf("SC_CLK_TCK"), time.process_time()


@cache
def thread_budget() -> ThreadBudget:
    """The budget of this process; at most as many threads as torch had when it was first asked for."""
    return ThreadBudget(torch.get_num_threads())

"""Progress of long work: moving bars in a terminal, occasional lines in log files."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 15.0


class Bars:
    """Progress of one or several named jobs, each with its remaining time. Use it as a context manager."""

    def __init__(self) -> None:
        console = Console(stderr=True, highlight=False)
        self._moving = console.is_terminal
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}", markup=False),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._begun: dict[str, tuple[float, int]] = {}  # time and progress of a job's first update
        self._last_line = 0.0

    def __enter__(self) -> "Bars":
        if self._moving:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._moving:
            self._bars.stop()

    def update(self, job: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """Report that a job is at `done` of `total`; the metrics are shown beside it."""
        now = time.monotonic()
        told = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        if self._moving:
            if job not in self._tasks:
                self._tasks[job] = self._bars.add_task(job, total=total, metrics="")
            self._bars.update(self._tasks[job], completed=done, total=total, metrics=told)
            return
        is_new = job not in self._begun
        begun_s, begun_at = self._begun.setdefault(job, (now, done))
        if now - self._last_line < SECONDS_BETWEEN_LINES and done < total and not is_new:
            return
        self._last_line = now
        left_s = (total - done) * (now - begun_s) / (done - begun_at) if done > begun_at else None
        left = "" if left_s is None else f"  {left_s / 60:.1f} min left"
        sys.stderr.write(f"{job} {done}/{total}{left}  {told}".rstrip() + "\n")

"""Threads beside other programs: one less for each core that they use, and all of them again afterwards."""

from pathlib import Path

import pytest

from longtake.core import threads
from longtake.core.threads import ThreadBudget

CORES = (0, 1, 2, 3)


class Machine:
    """Four cores, with the work of others and of this process as the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        self.wall_s = self.own_s = self.others_s = 0.0
        self.path = path
        monkeypatch.setattr(threads, "STAT", path)
        monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: set(CORES), raising=False)
        monkeypatch.setattr(threads.time, "monotonic", lambda: self.wall_s)
        monkeypatch.setattr(threads.time, "process_time", lambda: self.own_s)
        self.run(0, own=0, others=0)

    def run(self, wall_s: float, *, own: float, others: float) -> None:
        """Let time pass in which this process and others use so many cores."""
        self.wall_s += wall_s
        self.own_s += wall_s * own
        self.others_s += wall_s * others
        ticks = round(100 * (self.own_s + self.others_s))
        idle = round(100 * len(CORES) * self.wall_s) - ticks
        lines = [f"cpu {ticks} 0 0 {idle} 0 0 0 0 0 0", f"cpu0 {ticks} 0 0 {idle} 0 0 0 0 0 0"]
        lines += [f"cpu{core} 0 0 0 0 0 0 0 0 0 0" for core in (1, 2, 3, 9)]
        self.path.write_text("\n".join([*lines, "ctxt 5"]))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return Machine(monkeypatch, tmp_path / "stat")


@pytest.mark.parametrize(("others", "expected"), [(0.0, 4), (0.4, 4), (0.6, 3), (1.0, 3), (2.0, 2), (3.9, 1), (9.0, 1)])
def test_a_thread_less_for_each_core_that_others_use(machine: Machine, others: float, expected: int) -> None:
    budget = ThreadBudget(4)
    machine.run(1.0, own=2.5, others=others)
    assert budget.threads() == expected


def test_it_has_them_again_when_the_others_are_done_and_never_more_than_it_may(machine: Machine) -> None:
    budget = ThreadBudget(2)
    for others, expected in ((3.0, 1), (0.0, 2), (2.0, 2), (4.0, 1), (0.1, 2)):
        machine.run(0.5, own=1.0, others=others)
        assert budget.threads() == expected


def test_looks_that_follow_each_other_at_once_change_nothing(machine: Machine) -> None:
    budget = ThreadBudget(4)
    machine.run(1.0, own=1.0, others=3.0)
    assert budget.threads() == 1
    machine.run(0.01, own=1.0, others=0.0)
    assert budget.threads() == 1


def test_where_the_load_is_not_known_all_threads_are_used(machine: Machine) -> None:
    machine.path.unlink()
    assert ThreadBudget(3).threads() == 3

"""Tasks give the same results in this process, in several and on Ray, in order; their errors come back."""

from collections.abc import Iterator

import pytest
import torch

from longtake.core.cluster import RayTasks, connected
from longtake.core.errors import InputError
from longtake.core.tasks import LocalTasks, Tasks

CPU = torch.device("cpu")
NUM = 9


@pytest.fixture(scope="module", params=["here", "processes", "ray"])
def tasks(request: pytest.FixtureRequest) -> Iterator[Tasks]:
    if request.param == "ray":
        with connected("auto"):
            yield RayTasks(CPU)
    else:
        yield LocalTasks(CPU, 1 if request.param == "here" else 2)


def with_threads(factor: int, item: int) -> tuple[int, int]:
    if item < 0:
        raise InputError(f"{item} is below 0")
    return factor * item, torch.get_num_threads()


@pytest.mark.slow
def test_results_come_in_order_of_one_thread_each(tasks: Tasks) -> None:
    assert list(tasks.map(with_threads, 3, range(NUM), whole=False)) == [(3 * i, 1) for i in range(NUM)]


@pytest.mark.slow
def test_a_whole_task_has_all_cores(tasks: Tasks) -> None:
    assert list(tasks.map(with_threads, 3, [1, 2], whole=True)) == [
        (3, torch.get_num_threads()),
        (6, torch.get_num_threads()),
    ]


@pytest.mark.slow
def test_an_error_of_a_task_is_raised_where_its_result_is_read(tasks: Tasks) -> None:
    found = tasks.map(with_threads, 1, [4, -1, 5], whole=False)
    assert next(found)[0] == 4
    with pytest.raises(InputError, match="-1 is below 0"):
        next(found)


@pytest.mark.slow
def test_few_tasks_are_ahead_of_the_one_that_is_read(tasks: Tasks) -> None:
    drawn = []

    def items() -> Iterator[int]:
        for i in range(100):
            drawn.append(i)
            yield i

    found = tasks.map(with_threads, 1, items(), whole=False)
    next(found)
    assert len(drawn) <= 6
    found.close()


def test_threads_are_as_before_after_a_task() -> None:
    before = torch.get_num_threads()
    assert [threads for _, threads in LocalTasks(CPU, 1).map(with_threads, 1, [1], whole=False)] == [1]
    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_one_clear_error() -> None:
    with pytest.raises(InputError, match="cannot use Ray at 127"), connected("127.0.0.1:1"):
        pass

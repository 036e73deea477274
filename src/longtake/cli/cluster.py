"""`--ray`: the cluster on which a command computes."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch

from longtake.core.errors import InputError
from longtake.core.tasks import LocalTasks, Tasks


@contextmanager
def tasks_on(address: str | None, device: str) -> Iterator[Tasks]:
    """Tasks of the Ray cluster at `address` ("auto": of one that is started here) or, with None, of this machine.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be joined.
    """
    if address is None:
        yield LocalTasks(torch.device(device))
        return
    check_ray()
    from longtake.core.cluster import RayTasks, connected

    with connected(address):
        yield RayTasks(torch.device(device.partition(":")[0]))


def check_ray() -> None:
    """Raise an InputError if Ray is not installed."""
    if find_spec("ray") is None:
        raise InputError('this needs ray; install it with: pip install "longtake[fleet]"')

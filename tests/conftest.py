"""What holds for every test: few threads, deterministic kernels, and signatures that are checked.

The hook below makes every jaxtyping annotation of longtake a run-time check. It must be installed before
longtake is first imported, and it must not meet torch.compile: `LONGTAKE_SHAPES=off` leaves it out.
"""

import os

import jaxtyping
import pytest
import torch

SHAPES_CHECKED = os.environ.get("LONGTAKE_SHAPES", "on") != "off"

if SHAPES_CHECKED:
    # is_pep484_tower: an int is a float, as it is for every other reader of annotations
    jaxtyping.install_import_hook("longtake", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

if "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(2)
torch.use_deterministic_algorithms(True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that compile are left out while the shape checker is on; tests of a GPU, where there is none."""
    for item in items:
        if item.get_closest_marker("compiled") and SHAPES_CHECKED:
            item.add_marker(pytest.mark.skip(reason="run it with LONGTAKE_SHAPES=off (make compiled)"))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))

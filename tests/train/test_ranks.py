"""Any number of processes computes the same training, and may take it over from any other number."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from longtake.core.errors import TrainingError
from longtake.nets.text import MiniLMEncoder
from longtake.train import ode_init, ode_pairs, teacher
from longtake.train.ode_pairs import OdePairStage
from longtake.train.ranks import Ranks
from longtake.weights.checkpoint import read_weights
from tests.tiny import PRESET
from tests.train.shared import train_on
from tests.train.tiny_run import prepared

ROOT = Path(__file__).parents[2]
RESULTS = (("teaching/teacher", "teacher"), ("distilling/ode_init", "student"), ("distilling/dmd", "student"))

Train = Callable[..., None]


@pytest.fixture(scope="module")
def encoder() -> MiniLMEncoder:
    return MiniLMEncoder(PRESET.dit.text_len)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory, encoder: MiniLMEncoder) -> Path:
    out = tmp_path_factory.mktemp("ready")
    prepared(out / "teaching", encoder)
    shutil.rmtree(out / "teaching" / teacher.STAGE)
    second = prepared(out / "distilling", encoder)
    assert ode_pairs.run(OdePairStage(num_pairs=3, batch=2, num_steps=4, latent_frames=6), second)
    shutil.rmtree(out / "distilling" / ode_init.STAGE)
    return out


def weights(out: Path) -> dict[str, Tensor]:
    return {f"{folder}/{k}": v for folder, name in RESULTS for k, v in read_weights(out / folder, name).items()}


def in_two(out: Path, *arguments: str) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, "-m", "tests.train.shared", str(out), *arguments],
        check=False,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def alone(ready: Path, tmp_path_factory: pytest.TempPathFactory, encoder: MiniLMEncoder) -> dict[str, Tensor]:
    """What one process makes of it, never interrupted."""
    out = tmp_path_factory.mktemp("alone") / "run"
    shutil.copytree(ready, out)
    assert train_on(out, encoder)
    return weights(out)


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Compare weights to within half of the smallest step: Adam enlarges the rounding of gradients close to zero."""
    return one.keys() == other.keys() and all(torch.allclose(one[k], other[k], rtol=0, atol=5e-5) for k in one)


@pytest.mark.slow
def test_two_processes_make_the_same_networks_as_one(ready: Path, tmp_path: Path, alone: dict[str, Tensor]) -> None:
    out = tmp_path / "run"
    shutil.copytree(ready, out)
    in_two(out)
    assert equal(weights(out), alone)
    untrained = read_weights(ready / "distilling" / teacher.STAGE, "teacher")
    assert not equal({f"distilling/dmd/{k}": v for k, v in untrained.items()}, weights(out))


@pytest.mark.slow
def test_two_go_on_where_one_stopped_and_one_where_two_did(
    ready: Path, tmp_path: Path, alone: dict[str, Tensor], encoder: MiniLMEncoder
) -> None:
    out = tmp_path / "run"
    shutil.copytree(ready, out)
    train_on(out, encoder, stop=True)
    assert (out / "teaching" / "teacher" / "state.pt").exists()
    in_two(out, "--stop")
    (sharded,) = (out / "teaching" / "teacher").glob("state*")
    assert sharded.name == "state-00000002"
    for _ in range(16):
        if train_on(out, encoder, stop=True):
            break
    assert equal(weights(out), alone)


def test_micro_batches_are_shared_evenly_or_not_at_all() -> None:
    shares = [list(Ranks(rank=rank, size=3).micro_batches(6)) for rank in range(3)]
    assert shares == [[0, 3], [1, 4], [2, 5]]
    with pytest.raises(TrainingError, match="4 micro-batches, which 3 processes cannot share"):
        Ranks(size=3).micro_batches(4)

"""Shards of latents and of ODE pairs, and rows of an evaluation, are the same on Ray, to the bit."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from longtake.cli.main import main
from longtake.core.cluster import RayTasks, connected
from longtake.core.tasks import LocalTasks, Tasks
from longtake.evals.judge import judge_for
from longtake.nets.text import MiniLMEncoder
from longtake.recipes.smoke import recipe
from longtake.train import codec_fit, latents, ode_pairs
from longtake.train.latents import LatentStage
from longtake.train.ode_pairs import OdePairStage
from longtake.weights.checkpoint import save_weights
from longtake.worlds.scenes import WorldConfig
from tests.tiny import PRESET, random_codec, write_model
from tests.train.tiny_run import context, done, prepared

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
WORLD = replace(WorldConfig.small(), latent_frames=6)
CLIPS = LatentStage(num_clips=5, clips_per_shard=2)
READS_MORE = replace(PRESET, dit=replace(PRESET.dit, text_len=48))
PAIRS = OdePairStage(num_pairs=5, batch=2, num_steps=4, latent_frames=9)


@pytest.fixture(scope="module")
def encoder() -> MiniLMEncoder:
    return MiniLMEncoder(PRESET.dit.text_len)


@pytest.fixture
def cluster() -> Iterator[Tasks]:
    with connected("auto"):
        yield RayTasks(CPU)


@pytest.fixture(params=["processes", "ray"])
def tasks(request: pytest.FixtureRequest) -> Tasks:
    return LocalTasks(CPU, 2) if request.param == "processes" else request.getfixturevalue("cluster")


def shards(folder: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    assert len(found) == 3
    return found


def test_latents(tmp_path: Path, encoder: MiniLMEncoder, tasks: Tasks) -> None:
    made = []
    for name, where in (("here", LocalTasks(CPU, 1)), ("elsewhere", tasks)):
        run = replace(context(tmp_path / name, encoder), tasks=where)
        save_weights(run.folder(codec_fit.STAGE), "codec", random_codec(0, torch.float32).state_dict())
        done(run, codec_fit.STAGE)
        assert latents.run(CLIPS, WORLD, run)
        made.append(shards(run.folder(latents.STAGE)))
    assert made[0] == made[1]


def test_ode_pairs(tmp_path: Path, encoder: MiniLMEncoder, cluster: Tasks) -> None:
    made = []
    for name, where in (("here", LocalTasks(CPU)), ("elsewhere", cluster)):
        run = replace(prepared(tmp_path / name, encoder), tasks=where)
        assert ode_pairs.run(PAIRS, run)
        made.append(shards(run.folder(ode_pairs.STAGE)))
    assert made[0] == made[1]


def test_the_command_evaluates_on_ray(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, judge = str(write_model(tmp_path / "mine" / "model", preset=READS_MORE)), tmp_path / "judge.safetensors"
    judge_for(recipe().world, judge, lambda *_: None, num_clips=20, steps=2, batch=2)
    words = ["evaluate", "smoke", "--model", folder, "--prompts", "2", "--seconds", "10", "--device", "cpu"]
    found = []
    for out, more in ((tmp_path / "here", []), (tmp_path / "there", ["--ray", "auto"])):
        assert main([*words, "--judge", str(judge), "--out", str(out), *more]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        for row in rows:
            for speed in ("first frames, s", "frames/s"):
                row.pop(speed, None)
        found.append(rows)
    assert len(found[0]) == 2
    assert found[0] == found[1]

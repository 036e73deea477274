"""The whole chain in miniature, as `longtake train smoke` runs it; interrupted and resumed it gives the same model."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from longtake.core.tasks import LocalTasks
from longtake.sample.cues import cues_from
from longtake.sample.model import open_model
from longtake.studio.generate import generate
from longtake.train.run import load_recipe, run_recipe
from longtake.weights.checkpoint import digest, weight_files
from longtake.weights.manifest import NETS

pytestmark = pytest.mark.slow
RECIPE = "smoke"
HERE = LocalTasks(torch.device("cpu"), 1)  # starting other processes would take longer than their work
STAGES = tuple(load_recipe(RECIPE).stages())


def nothing(stage: str, done: int, of: int, values: Mapping[str, float]) -> None:
    del stage, done, of, values


def hashes(model: Path) -> dict[str, str]:
    return {name: digest(weight_files(model, name)) for name in NETS}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from nothing to a model, never interrupted."""
    out = tmp_path_factory.mktemp("whole")
    assert run_recipe(load_recipe(RECIPE), out=out, progress=nothing, tasks=HERE)
    return out


def test_every_stage_leaves_its_provenance(whole: Path) -> None:
    for stage in STAGES:
        facts = json.loads((whole / stage / "provenance.json").read_text())
        assert facts["stage"] == stage
    manifest = json.loads((whole / "model" / "manifest.json").read_text())
    assert manifest["provenance"].keys() == set(STAGES)
    assert manifest["sha256"] == hashes(whole / "model")


@pytest.mark.parametrize("teacher", [False, True])
def test_the_exported_model_makes_a_take(whole: Path, teacher: bool) -> None:
    model = open_model(str(whole / "model"), teacher=teacher)
    cues = cues_from("a tiger walks, then snow starts to fall", (), seconds=1.0)
    chunks = list(generate(model, cues, seconds=1.0, seed=3))
    assert [len(chunk.frames) for chunk in chunks] == [9, 12]
    assert {chunk.frames.shape[1:] for chunk in chunks} == {(96, 160, 3)}
    assert chunks[-1].prompt.endswith("snow starts to fall")


def test_a_finished_run_is_not_trained_again(whole: Path) -> None:
    states = {stage: (whole / stage / "provenance.json").stat().st_mtime_ns for stage in STAGES}
    assert run_recipe(load_recipe(RECIPE), out=whole, progress=nothing, tasks=HERE)
    assert states == {stage: (whole / stage / "provenance.json").stat().st_mtime_ns for stage in STAGES}


def test_interrupted_at_every_turn_and_resumed_the_model_is_the_same(whole: Path, tmp_path: Path) -> None:
    """A deadline that has passed stops each stage after its first step; running again goes on from there."""
    for _ in range(200):
        if run_recipe(load_recipe(RECIPE), out=tmp_path, progress=nothing, max_minutes=0, tasks=HERE):
            break
    else:
        pytest.fail("200 runs of a step each did not finish the recipe")
    assert hashes(tmp_path / "model") == hashes(whole / "model")


def test_later_stages_made_anew_are_the_same(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    for stage in ("ode_pairs", "ode_init", "dmd", "source_pairs", "source_adapter", "model"):
        shutil.rmtree(tmp_path / "run" / stage)
    assert run_recipe(load_recipe(RECIPE), out=tmp_path / "run", progress=nothing, tasks=HERE)
    assert hashes(tmp_path / "run" / "model") == hashes(whole / "model")


def test_a_student_is_distilled_of_a_finished_models_teacher(whole: Path, tmp_path: Path) -> None:
    recipe = replace(load_recipe(RECIPE), source_pairs=None, source_adapter=None).on_model(str(whole / "model"))
    assert run_recipe(recipe, out=tmp_path, progress=nothing, tasks=HERE)
    made, taken = hashes(tmp_path / "model"), hashes(whole / "model")
    assert {name for name in taken if made.get(name) == taken[name]} == {"teacher", "codec"}
    assert not open_model(str(tmp_path / "model")).is_teacher

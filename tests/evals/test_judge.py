"""The judge learns what is on a clip, keeps it, and knows its own world."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from longtake.core.errors import WeightsError
from longtake.evals.judge import Judge, classes_of, judge_for
from longtake.worlds.render import render
from longtake.worlds.sampling import sample_scene
from longtake.worlds.scenes import WorldConfig

WORLD = replace(WorldConfig.small(), places=("green_park", "sea_and_clouds", "desert_dawn"))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("judge") / "judge.safetensors"


@pytest.fixture(scope="module")
def judge(path: Path) -> Judge:
    told: list[str] = []
    judge = judge_for(WORLD, path, lambda job, *_: told.append(job), num_clips=120, steps=90, batch=8)
    assert "training the judge" in told
    return judge


def test_it_learns_places_in_a_minute_of_clips(judge: Judge) -> None:
    assert judge.accuracy["place"] > 0.9
    chance = {task: 1 / len(names) for task, names in classes_of(WORLD).items()}
    torch.manual_seed(0)
    blank = Judge(classes_of(WORLD))
    clip = render([sample_scene(WORLD, 5)])[0]
    scores = blank(torch.zeros(1, 9, 3, 96, 160))["place"].softmax(1)
    assert scores.max() < 0.9  # untrained, it does not know
    assert set(judge.see([clip], 16.0).answers) == set(chance)


def test_it_is_kept_and_read_again(judge: Judge, path: Path) -> None:
    again = judge_for(WORLD, path, lambda *_: pytest.fail("it was trained again"))
    clips = [render([sample_scene(WORLD, seed)])[0] for seed in range(4)]
    seen, seen_again = judge.see(clips, 16.0), again.see(clips, 16.0)
    assert seen.answers == seen_again.answers
    assert torch.equal(seen.features, seen_again.features)
    assert again.accuracy == judge.accuracy


def test_short_clips_are_held(judge: Judge) -> None:
    clip = render([sample_scene(WORLD, 1)])[0]
    short, held = (judge.see([one], 16.0).features for one in (clip[:1], clip[:1].expand(40, -1, -1, -1)))
    assert torch.allclose(short, held, atol=1e-5)


def test_the_judge_of_another_world_and_files_that_are_none_are_refused(
    judge: Judge, path: Path, tmp_path: Path
) -> None:
    del judge
    with pytest.raises(WeightsError, match="another world"):
        judge_for(WorldConfig.full(), path, lambda *_: None)
    broken = tmp_path / "judge.safetensors"
    broken.write_bytes(b"not a judge")
    with pytest.raises(WeightsError, match="is no judge"):
        judge_for(WORLD, broken, lambda *_: None)

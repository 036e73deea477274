"""A stage knows what it was made of, and a recipe whose parts contradict each other is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from longtake.cli.main import main
from longtake.core.errors import ConfigError, InputError, TrainingError
from longtake.nets.text import MiniLMEncoder
from longtake.train.latents import LatentStage
from longtake.train.loop import LoopConfig
from longtake.train.optim import OptimConfig
from longtake.train.run import load_recipe, run_recipe
from longtake.train.stage import seeded
from tests.tiny import PRESET, write_model
from tests.train.tiny_run import context

LOOP = LoopConfig(steps=3, optim=OptimConfig(adam_lr=1e-3))


@pytest.fixture(scope="module")
def encoder() -> MiniLMEncoder:
    return MiniLMEncoder(PRESET.dit.text_len)


def test_a_finished_stage_is_recognised_and_a_changed_one_refused(tmp_path: Path, encoder: MiniLMEncoder) -> None:
    run = context(tmp_path, encoder)
    assert run.begin("codec", LOOP) == tmp_path / "codec"
    assert not run.done("codec")
    run.finish("codec", held_out_psnr_db=30.0)
    assert run.done("codec")
    run.begin("codec", LOOP)
    with pytest.raises(TrainingError, match="another configuration"):
        run.begin("codec", replace(LOOP, steps=4))


def test_a_stage_waits_for_those_it_reads(tmp_path: Path, encoder: MiniLMEncoder) -> None:
    with pytest.raises(TrainingError, match="latents needs codec, which is not finished"):
        context(tmp_path, encoder).begin("latents", LOOP, after=("codec",))


def test_what_was_made_from_an_older_stage_is_refused(tmp_path: Path, encoder: MiniLMEncoder) -> None:
    run = context(tmp_path, encoder)
    run.begin("codec", LOOP)
    run.finish("codec", version=1)
    run.begin("latents", LOOP, after=("codec",))
    run.begin("latents", LOOP, after=("codec",))
    run.finish("codec", version=2)
    with pytest.raises(TrainingError, match="made anew since"):
        run.begin("latents", LOOP, after=("codec",))


def test_first_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    a = seeded(7, lambda: torch.nn.Linear(3, 3))
    before = torch.random.get_rng_state()
    torch.manual_seed(2)
    b, c = (seeded(seed, lambda: torch.nn.Linear(3, 3)) for seed in (7, 8))
    assert torch.equal(a.weight, b.weight)
    assert not torch.equal(a.weight, c.weight)
    torch.manual_seed(1)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_recipe_that_contradicts_itself_is_refused() -> None:
    recipe = load_recipe("smoke")
    with pytest.raises(ConfigError, match="the world's chunk is 6, the preset's 3"):
        replace(recipe, world=replace(recipe.world, chunk=6))
    assert recipe.dmd is not None
    with pytest.raises(ConfigError, match="openings has 12 latent frames"):
        replace(recipe, openings=LatentStage(num_clips=1, latent_frames=12))
    with pytest.raises(ConfigError, match="the dmd rollout has 7 latent frames"):
        replace(recipe, dmd=replace(recipe.dmd, rollout_frames=7))
    with pytest.raises(ConfigError, match="the dmd rollout has 15 latent frames"):
        replace(recipe, dmd=replace(recipe.dmd, rollout_frames=15))


def test_only_a_model_of_the_recipes_shape_with_a_teacher_is_distilled(tmp_path: Path) -> None:
    recipe = replace(load_recipe("smoke"), preset=replace(PRESET, size=load_recipe("smoke").preset.size))
    model = write_model(tmp_path / "tiny")
    with pytest.raises(
        ConfigError, match=r"tiny's dit is .* a recipe that begins with a model has networks of its shape"
    ):
        load_recipe("smoke").on_model(str(model))
    taken = recipe.on_model(str(model))
    assert taken.teacher.loop.steps == 0
    assert taken.teacher.start == str(model)
    (model / "teacher.safetensors").unlink()
    with pytest.raises(ConfigError, match="has no teacher"):
        recipe.on_model(str(model))


def test_recipes_stages_and_devices_that_are_not_there_are_told(tmp_path: Path) -> None:
    def run(name: str, stages: tuple[str, ...] = (), device: str = "cpu") -> None:
        run_recipe(load_recipe(name), out=tmp_path, progress=lambda *_: None, stages=stages, device=device)

    with pytest.raises(InputError, match='no recipe "nothing"'):
        run("nothing")
    with pytest.raises(InputError, match="no stage 'tutor'"):
        run("smoke", stages=("tutor",))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="sees no CUDA device"):
            run("smoke", device="cuda")
    empty = tmp_path / "empty.py"
    empty.write_text("x = 1\n")
    with pytest.raises(InputError, match=r"must define a function recipe\(\)"):
        run(str(empty))


def test_videos_have_a_start_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "smoke", "--from", "tiny-world", "--data", "films"]) == 2
    assert "leave out --from or --data" in capsys.readouterr().err

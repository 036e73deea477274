"""The other ways to a student: teacher forcing, consistency, distillation from data; and recipes that need them."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from benchmarks.recipes import link_stage, shared
from longtake.core.errors import ConfigError, TrainingError
from longtake.core.shapes import Latent
from longtake.flow.path import per_frame
from longtake.flow.schedule import sigmas_of
from longtake.nets.dit import DiT, Velocity
from longtake.nets.text import MiniLMEncoder
from longtake.train import ar_teacher, consistency, dmd
from longtake.train.ar_teacher import ArTeacherStage, mean_of_learnable
from longtake.train.batches import Batch, LatentClips
from longtake.train.consistency import ConsistencyStage
from longtake.train.dmd import DmdStage, clip_from_data
from longtake.train.latents import STAGE as LATENTS
from longtake.train.loop import LoopConfig
from longtake.train.optim import OptimConfig
from longtake.train.run import load_recipe, packaged_recipes
from longtake.train.stage import Context
from longtake.train.trainee import Trainee
from longtake.weights.checkpoint import read_weights, save_weights
from tests.tiny import PRESET, random_dit
from tests.train.tiny_run import done, prepared, trainees_of

OPTIM = OptimConfig(adam_lr=3e-3, warmup=1)
FORCED = ArTeacherStage(loop=LoopConfig(steps=0, optim=OPTIM), batch=2, latent_frames=6, shift=3.0)
AGREEING = ConsistencyStage(
    loop=LoopConfig(steps=0, optim=OPTIM), batch=3, latent_frames=6, num_steps=8, guidance_scale=2.0
)
FROM_DATA = DmdStage(
    loop=LoopConfig(steps=0, optim=OPTIM, ema_decay=0.9),
    critic=OPTIM,
    batch=4,
    latent_frames=9,
    rollout_frames=9,
    shift=3.0,
    guidance_scale=2.0,
    inputs="data",
    start="consistency",
)


@pytest.fixture(scope="module")
def encoder() -> MiniLMEncoder:
    return MiniLMEncoder(PRESET.dit.text_len)


@pytest.fixture
def run(tmp_path: Path, encoder: MiniLMEncoder) -> Context:
    """With an autoregressive teacher, and a student's start of consistency."""
    ready = prepared(tmp_path, encoder)
    for seed, (stage, name) in enumerate(((ar_teacher.STAGE, "ar_teacher"), (consistency.STAGE, "student")), 7):
        save_weights(ready.folder(stage), name, random_dit(PRESET.dit, seed, torch.float32).state_dict())
    return ready


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_teacher_forcing_learns_and_leaves_its_provenance(run: Context) -> None:
    stage = replace(FORCED, loop=LoopConfig(steps=30, optim=OPTIM, ema_decay=0.5, log_every=30), batch=4)
    before = _forced_loss(run, run.folder("teacher"), "teacher")
    assert ar_teacher.run(stage, run)
    assert run.done(ar_teacher.STAGE)
    assert _forced_loss(run, run.folder(ar_teacher.STAGE), "ar_teacher") < 0.8 * before


def _forced_loss(run: Context, folder: Path, name: str) -> float:
    """Of a network's x0 of the second chunk at half noise, over some draws."""
    net = DiT(PRESET.dit)
    net.load_state_dict({k: v.float() for k, v in read_weights(folder, name).items()})
    clips = LatentClips(run.folder(LATENTS), run.encoder, PRESET.stream.chunk, run.device)
    total = 0.0
    for seed in range(8):
        batch = clips.draw(4, 6, rng(seed))
        eps = torch.randn(batch.x0.shape, generator=rng(seed))
        sigma = torch.full((4, 6), 0.7)
        with torch.no_grad():
            v = net.forward_teacher_forced(batch.x0, 0.3 * batch.x0 + 0.7 * eps, sigma, batch.text, 3)
        total += float((v - (eps - batch.x0)).square().mean())
    return total


def test_the_first_chunk_of_a_clip_from_inside_a_scene_is_only_context() -> None:
    error = torch.ones(3, 2, 6, 2, 2)
    error[1, :, :3] = 100
    error[2, :, 3:] = 4
    batch = Batch(x0=error, text=torch.zeros(3, 2, 1, 1), opens=torch.tensor([True, False, False]))
    assert float(mean_of_learnable(error, torch.ones_like(error), batch, 3)) == pytest.approx((1 + 1 + 1 + 4) / 4)
    videos = replace(batch, opens=None)
    assert float(mean_of_learnable(error, torch.ones_like(error), videos, 3)) == pytest.approx(float(error.mean()))


def consistency_loss(run: Context, monkeypatch: pytest.MonkeyPatch) -> Trainee:
    done(run, ar_teacher.STAGE)
    (trainee,) = trainees_of(monkeypatch, lambda: consistency.run(AGREEING, run))
    return trainee


def test_consistency_reaches_the_student_and_no_other(run: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    student = consistency_loss(run, monkeypatch)
    loss, _ = student.loss(0, rng())
    loss.backward()
    assert loss > 0
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in student.net.parameters())


@pytest.mark.parametrize(("off", "agrees"), [(0.0, True), (0.3, False)])
def test_who_knows_where_every_path_ends_agrees_with_himself(
    run: Context, monkeypatch: pytest.MonkeyPatch, off: float, *, agrees: bool
) -> None:
    """Straight paths to the data are their own ODE: a student that returns the data has no loss, one beside it has."""

    def straight(self: DiT, x0: Latent, x_t: Latent, sigma: torch.Tensor, text: torch.Tensor, chunk: int) -> Latent:
        del text, chunk
        wrong = off * per_frame(sigma) if self.training else 0.0
        return (x_t - x0) / per_frame(sigma).clamp(min=1e-6) + wrong + 0 * self.patch_embedding.weight.sum()

    monkeypatch.setattr(DiT, "forward_teacher_forced", straight)
    student = consistency_loss(run, monkeypatch)
    loss, _ = student.loss(0, rng())
    assert (loss.item() < 1e-8) == agrees


def test_distillation_from_data_keeps_clean_chunks_and_learns_from_the_others(run: Context) -> None:
    clips = LatentClips(run.folder(LATENTS), run.encoder, PRESET.stream.chunk, run.device)
    student = random_dit(PRESET.dit, 3, torch.float32)
    x, text = clip_from_data(FROM_DATA, PRESET, student, clips, rng(1))
    x0 = clips.draw(FROM_DATA.batch, FROM_DATA.latent_frames, rng(1)).x0
    kept = (x - x0).abs().amax((1, 3, 4)) == 0
    chunks = kept.unflatten(1, (-1, PRESET.stream.chunk))
    assert bool((chunks.all(2) == chunks.any(2)).all())  # whole chunks
    share = chunks.all(2).float().mean()
    assert 0 < share < 1
    assert len(sigmas_of(PRESET.student)) == 2  # so a third of them on average
    assert text.shape[1] == 3
    x.sum().backward()
    assert all(p.grad is not None for p in student.parameters())


def test_the_student_begins_where_the_recipe_says(run: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    done(run, consistency.STAGE)
    student, critic = trainees_of(monkeypatch, lambda: dmd.run(FROM_DATA, run))
    begun = read_weights(run.folder(consistency.STAGE), "student")
    # Nothing was trained: what was written is the start.
    written = read_weights(run.folder(dmd.STAGE), "student")
    assert all(torch.equal(written[name], begun[name]) for name in begun)
    for trainee in (student, critic):
        loss, _ = trainee.loss(0, rng())
        assert torch.isfinite(loss)


def test_an_autoregressive_teacher_sees_the_student_s_own_past(run: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its score of a chunk does not change with chunks that come later; a bidirectional one's does."""
    for name in (ar_teacher.STAGE, consistency.STAGE):
        done(run, name)

    def moved(score: Literal["teacher", "ar_teacher"]) -> list[bool]:
        asked: list[Tensor] = []
        clip = torch.randn(FROM_DATA.batch, PRESET.dit.in_dim, 9, 4, 6, generator=rng(1))

        def told(follow: Velocity, *rest: Any) -> Any:
            sigma, text = rest[3], rest[4]
            for later in (0.0, 1.0):
                x_t = clip.clone()
                x_t[:, :, 6:] += later
                asked.append(follow(x_t, sigma, text))
            raise TrainingError("enough")

        monkeypatch.setattr(dmd, "scores", told)
        stage = replace(FROM_DATA, score=score, loop=replace(FROM_DATA.loop, steps=1), critic_updates=1)
        shutil.rmtree(run.out / dmd.STAGE, ignore_errors=True)
        with pytest.raises(TrainingError, match="enough"):
            dmd.run(stage, run)
        return [bool((asked[0] - asked[1])[:, :, part].abs().max() > 1e-6) for part in (slice(0, 6), slice(6, 9))]

    assert moved("ar_teacher") == [False, True]
    assert moved("teacher") == [True, True]


def test_recipes_have_the_stages_that_they_need() -> None:
    names = ("causvid", "self_forcing", "causal_forcing", "long_tuning")
    recipes = {name: load_recipe(name) for name in names}
    stages = {name: list(recipe.stages()) for name, recipe in recipes.items()}
    shared = ["codec", "latents", "teacher"]
    assert stages["causvid"] == stages["self_forcing"] == [*shared, "ode_pairs", "ode_init", "dmd"]
    assert stages["causal_forcing"] == [*shared, "ar_teacher", "consistency", "dmd"]
    assert stages["long_tuning"] == [*stages["self_forcing"], "tuning"]
    assert [recipes[name].student for name in ("self_forcing", "long_tuning")] == ["dmd", "tuning"]
    tuning = recipes["long_tuning"].tuning
    assert tuning is not None
    with pytest.raises(ConfigError, match="needs dmd"):
        replace(recipes["long_tuning"], dmd=None)
    with pytest.raises(ConfigError, match='start="dmd", not "teacher"'):
        replace(recipes["long_tuning"], tuning=replace(tuning, start="teacher"))
    with pytest.raises(ConfigError, match="the tuning rollout is 46 latent frames"):
        replace(recipes["long_tuning"], tuning=replace(tuning, rollout_frames=46))
    distilled = recipes["causvid"].dmd
    assert distilled is not None
    assert distilled.inputs == "data"
    with pytest.raises(ConfigError, match="the recipe needs ode_pairs"):
        replace(recipes["causvid"], ode_pairs=None)
    with pytest.raises(ConfigError, match="the recipe needs ar_teacher"):
        replace(recipes["causvid"], dmd=replace(distilled, start="consistency"))
    with pytest.raises(ConfigError, match="the autoregressive teacher, so the recipe needs ar_teacher"):
        replace(recipes["causvid"], dmd=replace(distilled, score="ar_teacher"))
    with pytest.raises(ConfigError, match="makes no student"):
        replace(recipes["causvid"], dmd=None, ode_init=None)


def test_ablations_leave_out_what_they_say() -> None:
    recipes = {
        name.removeprefix("ablations/").replace("-", "_"): load_recipe(name)
        for name in packaged_recipes()
        if name.startswith("ablations/")
    }
    stages = {name: list(recipe.stages())[3:] for name, recipe in recipes.items()}
    assert stages == {
        "ode_only": ["ode_pairs", "ode_init"],
        "no_init": ["dmd"],
        "causal_teacher": ["ode_pairs", "ode_init", "ar_teacher", "dmd"],
        "two_steps": ["ode_pairs", "ode_init", "dmd"],
        "one_step": ["ode_pairs", "ode_init", "dmd"],
        "short_window": ["ode_pairs", "ode_init", "dmd"],
        "sink": ["ode_pairs", "ode_init", "dmd"],
        "chunk_one": ["ode_pairs", "ode_init", "dmd"],
    }
    assert {name: recipe.student for name, recipe in recipes.items() if recipe.dmd is None} == {"ode_only": "ode_init"}
    assert [recipes[name].preset.student.num_steps for name in ("two_steps", "one_step", "no_init")] == [2, 1, 4]
    streams = {name: recipes[name].preset.stream for name in ("no_init", "short_window", "sink", "chunk_one")}
    assert {name: (one.chunk, one.window, one.sink) for name, one in streams.items()} == {
        "no_init": (3, 9, 0), "short_window": (3, 6, 0), "sink": (3, 9, 3), "chunk_one": (1, 9, 0)
    }  # fmt: skip


def test_recipes_that_are_compared_share_what_they_make_alike() -> None:
    default = load_recipe("self-forcing")

    def common(name: str) -> list[str]:
        return shared(load_recipe(f"ablations/{name}"), default)[2:]

    assert common("ode_only") == ["latents", "ode_pairs", "ode_init"]
    assert common("two_steps") == ["latents"]
    assert common("short_window") == ["latents", "ode_pairs"]
    assert common("chunk_one") == common("one_step")[1:] == []
    assert shared(load_recipe("long-tuning"), default)[2:] == ["latents", "ode_pairs", "ode_init", "dmd"]
    assert shared(load_recipe("causal-forcing"), default)[2:] == ["latents"]


def test_a_shared_stage_stands_where_what_it_does_not_see_is_otherwise(run: Context, tmp_path: Path) -> None:
    run.begin("shared", run.preset.stream)
    run.finish("shared")
    link_stage(run.folder("shared"), tmp_path / "second" / "shared")
    second = replace(run, out=tmp_path / "second")
    second.begin("shared", replace(run.preset.stream, sink=3))
    assert second.done("shared")


def test_consistency_aims_at_the_averaged_student(run: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    student = consistency_loss(run, monkeypatch)
    before, _ = student.loss(0, rng())
    assert student.ema is not None
    for average in student.ema.shadow.values():
        average.mul_(1.5)
    after, _ = student.loss(0, rng())
    assert (after - before).abs() > 1e-4 * before

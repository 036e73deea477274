"""Distillation: who learns from what, and that what is learned is the teacher's distribution."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from longtake.core.configs import StreamConfig
from longtake.flow.path import add_noise
from longtake.nets.dit import DiT
from longtake.nets.text import MiniLMEncoder
from longtake.sample.denoise import Schedule
from longtake.train import dmd, latents, ode_init
from longtake.train.batches import LatentClips
from longtake.train.dmd import DmdStage, dmd_gradient, dmd_loss, scores
from longtake.train.loop import LoopConfig
from longtake.train.optim import OptimConfig
from longtake.train.self_rollout import self_rollout
from longtake.train.stage import Context
from longtake.train.trainee import Trainee
from longtake.weights.checkpoint import save_weights
from tests.tiny import DIT, PRESET, random_dit
from tests.train.tiny_run import LATENT_FRAMES, done, prepared, trainees_of

OPTIM = OptimConfig(adam_lr=1e-3, warmup=1)
MEAN, STD = 0.7, 0.4  # of the toy's data


def stage(steps: int = 0) -> DmdStage:
    return DmdStage(
        loop=LoopConfig(steps=steps, optim=OPTIM, ema_decay=0.9),
        critic=OPTIM,
        batch=2,
        latent_frames=6,
        rollout_frames=9,
        shift=3.0,
        guidance_scale=2.0,
        critic_updates=3,
    )


@pytest.fixture(scope="module")
def encoder() -> MiniLMEncoder:
    return MiniLMEncoder(PRESET.dit.text_len)


@pytest.fixture
def run(tmp_path: Path, encoder: MiniLMEncoder) -> Context:
    ready = prepared(tmp_path, encoder)
    done(ready, ode_init.STAGE)
    return ready


@pytest.fixture
def pair(run: Context, monkeypatch: pytest.MonkeyPatch) -> tuple[Trainee, Trainee]:
    """The student and the critic, before their first step."""
    found = {t.name: t for t in trainees_of(monkeypatch, lambda: dmd.run(stage(), run))}
    return found["student"], found["critic"]


def touched(trainee: Trainee) -> bool:
    grads = [p.grad for p in trainee.net.parameters()]
    return any(g is not None and bool(g.any()) for g in grads)


def test_the_students_loss_reaches_the_student_alone(pair: tuple[Trainee, Trainee]) -> None:
    student, critic = pair
    loss, _ = student.loss(0, torch.Generator().manual_seed(0))
    loss.backward()
    assert touched(student)
    assert not touched(critic)
    assert all(p.grad is not None for p in student.net.parameters())


def test_the_critics_loss_reaches_the_critic_alone(pair: tuple[Trainee, Trainee]) -> None:
    student, critic = pair
    loss, _ = critic.loss(0, torch.Generator().manual_seed(0))
    loss.backward()
    assert touched(critic)
    assert not touched(student)
    assert all(p.grad is not None for p in critic.net.parameters())


def test_the_same_step_draws_the_same_losses(pair: tuple[Trainee, Trainee]) -> None:
    for trainee in pair:
        first, again, other = (
            float(trainee.loss(0, torch.Generator().manual_seed(seed))[0].detach()) for seed in (1, 1, 2)
        )
        assert first == again != other


def test_the_critic_learns_at_every_step_and_the_student_at_every_third(run: Context) -> None:
    assert dmd.run(stage(steps=6), run)
    state = torch.load(run.folder(dmd.STAGE) / "state.pt", weights_only=True)
    assert state["step"] == 6
    assert state["student/averaged"] == 2
    assert state["critic/optim/head.modulation/step"] == 6


def clips() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    x, eps = (torch.randn(2, DIT.in_dim, 3, 4, 6, generator=rng, dtype=torch.float64) for _ in range(2))
    text = torch.randn(2, 1, DIT.text_len, DIT.text_dim, generator=rng, dtype=torch.float64)
    return x, eps, text, torch.zeros_like(text)


def test_a_critic_that_is_the_teacher_finds_nothing_to_correct_without_guidance() -> None:
    x, eps, text, uncond = clips()
    teacher, sigma = random_dit(), torch.full((2, 3), 0.6, dtype=torch.float64)
    fake, real = scores(teacher, teacher, x, eps, sigma, text, uncond, 1.0)
    assert (fake - real).abs().max() < 1e-12
    fake, real = scores(teacher, teacher, x, eps, sigma, text, uncond, 3.0)
    assert (fake - real).abs().max() > 1e-3  # control: guidance moves the teacher


def test_scores_carry_no_gradient_to_any_network() -> None:
    x, eps, text, uncond = clips()
    teacher, critic = random_dit(), random_dit(seed=1)
    sigma = torch.full((2, 3), 0.6, dtype=torch.float64)
    fake, real = scores(teacher, critic, x.requires_grad_(), eps, sigma, text, uncond, 2.0)
    assert not fake.requires_grad
    assert not real.requires_grad


def test_the_scale_of_the_gradient_does_not_depend_on_the_scale_of_the_latents() -> None:
    rng = torch.Generator().manual_seed(0)
    x, fake, real = (torch.randn(2, 3, 4, 2, 2, generator=rng) for _ in range(3))
    assert torch.allclose(dmd_gradient(x, fake, real), dmd_gradient(9 * x, 9 * fake, 9 * real), rtol=1e-5)
    alone = dmd_gradient(x[1:], fake[1:], real[1:])
    assert torch.equal(dmd_gradient(x, fake, real)[1:], alone)  # each sample by its own distance


def exact_x0(x_t: Tensor, sigma: Tensor, mean: float, std: float) -> Tensor:
    """E[x0 | x_t] where x0 ~ N(mean, std^2)."""
    s = sigma[:, None, :, None, None]
    return mean + (1 - s) * std**2 / ((1 - s) ** 2 * std**2 + s**2) * (x_t - (1 - s) * mean)


def distilled(direction: float, steps: int = 300) -> tuple[float, float]:
    """Mean and deviation of an affine student after training with exact scores of both sides."""
    mean, log_std = torch.zeros((), requires_grad=True), torch.zeros((), requires_grad=True)
    rng = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD([mean, log_std], lr=0.2)
    for _ in range(steps):
        z, eps = (torch.randn(64, 1, 1, 2, 2, generator=rng) for _ in range(2))
        sigma = torch.rand(64, 1, generator=rng) * 0.96 + 0.02
        x = mean + log_std.exp() * z
        with torch.no_grad():
            x_t = add_noise(x, eps, sigma)
            fake = exact_x0(x_t, sigma, float(mean), float(log_std.exp()))
            real = exact_x0(x_t, sigma, MEAN, STD)
            gradient = direction * dmd_gradient(x, fake, real)
        optimizer.zero_grad()
        dmd_loss(x, gradient).backward()
        optimizer.step()
    return float(mean.detach()), float(log_std.exp().detach())


def test_distillation_moves_a_gaussian_onto_its_teacher() -> None:
    mean, std = distilled(+1.0)
    assert abs(mean - MEAN) < 0.05
    assert abs(std - STD) < 0.05


def test_control_the_opposite_sign_moves_it_away() -> None:
    mean, _ = distilled(-1.0, steps=5)
    assert mean < -0.3


def test_every_chunk_of_a_rollout_is_scored_sometimes(
    pair: tuple[Trainee, Trainee], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A take begins with its first chunk and goes on beyond the window: both must be learned."""
    student, _ = pair
    whole = dmd.self_rollout
    rolled: list[tuple[int, int]] = []  # first scored chunk, exit step

    def watched(
        dit: DiT,
        schedule: Schedule,
        stream: StreamConfig,
        text: Tensor,
        noise: Tensor,
        exit_step: int,
        scored: int,
        *,
        recache: bool,
    ) -> Tensor:
        assert not recache
        x = whole(dit, schedule, stream, text, noise, exit_step, scored)
        assert x.shape[2] == scored
        assert x.requires_grad
        rolled.append(((noise.shape[3] - scored) // stream.chunk, exit_step))
        return x

    monkeypatch.setattr(dmd, "self_rollout", watched)
    for seed in range(12):
        student.loss(seed, torch.Generator().manual_seed(0))
    assert {first for first, _ in rolled} == {0, 1}
    assert {exit_step for _, exit_step in rolled} == set(range(PRESET.student.num_steps))


def test_tuning_rolls_beyond_a_clip_under_changing_prompts(run: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    done(run, dmd.STAGE)
    save_weights(run.folder(dmd.STAGE), "student", random_dit(seed=5, dtype=torch.float32).state_dict())
    tuning = replace(stage(), start="dmd", recache=True, rollout_frames=24)
    student, _ = trainees_of(monkeypatch, lambda: dmd.run(tuning, run, dmd.TUNING))
    assert run.done(dmd.TUNING)
    began = random_dit(seed=5, dtype=torch.float32).state_dict()
    assert all(torch.equal(p, began[name]) for name, p in student.net.state_dict().items())
    texts: list[Tensor] = []

    def watched(dit: DiT, schedule: Schedule, stream: StreamConfig, text: Tensor, *rest: Any, recache: bool) -> Tensor:
        assert recache
        texts.append(text)
        return self_rollout(dit, schedule, stream, text, *rest, recache=recache)

    monkeypatch.setattr(dmd, "self_rollout", watched)
    for seed in range(12):
        student.loss(seed, torch.Generator().manual_seed(seed))
    longest = max(texts, key=lambda text: text.shape[1])
    assert longest.shape[1] > LATENT_FRAMES // PRESET.stream.chunk
    # What is scored is asked for by one clip's captions: of two captions at the most, its own.
    opening = {text[:, -2:].unique(dim=1).shape[1] for text in texts}
    assert opening <= {1, 2}
    changes = [int((text[:, 1:] != text[:, :-1]).flatten(2).any(2).sum(1).max()) for text in texts]
    assert max(changes) >= 2  # more than one clip's captions change


def test_a_rollout_is_scored_under_the_captions_of_its_last_chunks(
    run: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Tensor] = []

    def rolled_out(*args: Any, **_: bool) -> Tensor:
        text, noise = args[3:5]
        given.append(text)
        return noise[0, :, :, -6:]

    monkeypatch.setattr(dmd, "self_rollout", rolled_out)
    clips = LatentClips(run.folder(latents.STAGE), run.encoder, PRESET.stream.chunk, run.device)
    clips.rows = torch.arange(clips.rows.numel()).view_as(clips.rows) % len(clips.table.states)  # no two alike
    long, dit = replace(stage(), rollout_frames=18), random_dit(dtype=torch.float32)
    for step in range(8):
        rng = torch.Generator().manual_seed(step)
        _, scored = dmd.clip_by_rollout(long, PRESET, dit, clips, rng, step)
        assert torch.equal(scored, given[-1][:, -2:])
    assert max(text.shape[1] for text in given) > 2
    assert any(not torch.equal(text[:, :2], text[:, -2:]) for text in given)

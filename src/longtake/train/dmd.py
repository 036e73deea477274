"""Stage 6: asymmetric distribution matching distillation (DMD, Yin et al. 2024; CausVid, sec. 4.3).

The causal student generates a clip, by self-rollout (Self-Forcing) or from noised data (CausVid). The bidirectional
teacher estimates the score of the data; the critic, trained alongside on the student's clips, estimates the score of
the student's distribution. Their difference at a random noise level is the student's gradient:

    g = (x0_critic - x0_teacher) / mean |x - x0_teacher|        L = |x - stopgrad(x - g)|^2 / 2
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from longtake.core.configs import Preset
from longtake.core.noise import rng_for
from longtake.core.shapes import Latent, Sigma, TextStates
from longtake.flow.guidance import guide
from longtake.flow.path import add_noise, velocity, x0_from_velocity
from longtake.flow.schedule import sigmas_of, uniform_sigma
from longtake.nets.dit import DiT, Velocity
from longtake.sample.denoise import Schedule
from longtake.train.batches import LatentClips, normal
from longtake.train.consistency import STAGE as CONSISTENCY
from longtake.train.ema import EMA
from longtake.train.health import Bound, Health
from longtake.train.latents import STAGE as LATENTS
from longtake.train.loop import LoopConfig
from longtake.train.ode_init import STAGE as ODE_INIT
from longtake.train.optim import OptimConfig
from longtake.train.self_rollout import self_rollout
from longtake.train.sheets import student_sheet
from longtake.train.stage import Context, train_and_keep
from longtake.train.teacher import STAGE as TEACHER
from longtake.train.teacher import load_dit, placed
from longtake.train.trainee import Trainee

STAGE = "dmd"
TUNING = "tuning"  # second distillation, on long rollouts with changing prompts


@dataclass(frozen=True, kw_only=True, slots=True)
class DmdStage:
    """Configuration of the distillation; `loop.optim` is the student's optimizer."""

    loop: LoopConfig
    critic: OptimConfig
    batch: int
    latent_frames: int  # scored latent frames, the last ones of the rollout
    rollout_frames: int  # longest rollout; beyond the window, the oldest chunks are evicted as at inference
    shift: float  # shift of the noise levels at which teacher and critic are evaluated
    guidance_scale: float
    critic_updates: int = 5  # critic updates per student update
    inputs: Literal["rollout", "data"] = "rollout"  # what the student generates its clips from
    start: Literal["ode_init", "consistency", "teacher", "dmd"] = "ode_init"  # stage that initialises the student
    score: Literal["teacher", "ar_teacher"] = "teacher"  # stage whose network estimates the score of the data
    recache: bool = False  # recompute memory where a prompt changes, as in a take; rollouts may then exceed a clip


def dmd_gradient(x: Latent, x0_critic: Latent, x0_teacher: Latent) -> Latent:
    """Gradient (x0_critic - x0_teacher) / mean |x - x0_teacher|, normalised per sample (DMD, eq. 8)."""
    scale = (x - x0_teacher).abs().mean((1, 2, 3, 4), keepdim=True).clamp(min=1e-4)
    return (x0_critic - x0_teacher) / scale


def dmd_loss(x: Latent, gradient: Latent) -> Tensor:
    """Scalar loss whose gradient with respect to `x` is `gradient / x.numel()`."""
    return 0.5 * (x - (x - gradient).detach()).square().mean()


@torch.no_grad()
def scores(
    teacher: Velocity,
    critic: Velocity,
    x: Latent,
    eps: Latent,
    sigma: Sigma,
    text: TextStates,
    uncond: TextStates,
    guidance_scale: float,
) -> tuple[Latent, Latent]:
    """x0 predictions of the critic and of the guided teacher, from x noised to level sigma."""
    x_t = add_noise(x, eps, sigma)
    fake = critic(x_t, sigma, text)
    real = guide(teacher(x_t, sigma, text), teacher(x_t, sigma, uncond), guidance_scale)
    return x0_from_velocity(x_t, fake, sigma), x0_from_velocity(x_t, real, sigma)


def clip_by_rollout(
    stage: DmdStage, preset: Preset, student: DiT, clips: LatentClips, rng: torch.Generator, step: int
) -> tuple[Latent, TextStates]:
    """Clip by self-rollout, chunk after chunk on the student's own memory (Self-Forcing), and its text.

    Of the data, only the captions are used. A rollout longer than a clip begins with other clips' captions, so its
    prompt changes; the scored part begins at the last of these changes or after it.

    Length and exit step are drawn once per step, so that all ranks gather their shards for equally many passes.
    """
    chunk = preset.stream.chunk
    common = rng_for(stage.loop.seed, ("rollout", step))
    beyond = (stage.rollout_frames - stage.latent_frames) // chunk
    frames = stage.latent_frames + chunk * int(torch.randint(beyond + 1, (1,), generator=common))
    exit_step = int(torch.randint(preset.student.num_steps, (1,), generator=common))
    own = frames
    if frames > clips.latent_frames:
        more = (clips.latent_frames - stage.latent_frames) // chunk
        own = stage.latent_frames + chunk * int(torch.randint(more + 1, (1,), generator=common))
    last = clips.draw(stage.batch, own, rng)
    text = last.text
    while (missing := frames - chunk * text.shape[1]) > 0:
        before = clips.draw(stage.batch, min(missing, clips.latent_frames), rng)
        text = torch.cat((before.text, text), 1)
    shape = (*last.x0.shape[:2], frames, *last.x0.shape[3:])
    noise = normal((exit_step + 1, *shape), rng, clips.device)
    schedule = Schedule.of(student, preset.student)
    x = self_rollout(
        student, schedule, preset.stream, text, noise, exit_step, stage.latent_frames, recache=stage.recache
    )
    return x, text[:, -(stage.latent_frames // chunk) :]


def clip_from_data(
    stage: DmdStage, preset: Preset, student: DiT, clips: LatentClips, rng: torch.Generator
) -> tuple[Latent, TextStates]:
    """Clip by one causal pass over a real clip, each chunk at one of the student's noise levels or clean, and its text.

    CausVid, alg. 1. A clean chunk stays unchanged and is context for later chunks.
    """
    chunk = preset.stream.chunk
    batch = clips.draw(stage.batch, stage.latent_frames, rng)
    levels = torch.tensor((*sigmas_of(preset.student), 0.0), dtype=torch.float32)
    picked = torch.randint(len(levels), (stage.batch, stage.latent_frames // chunk), generator=rng)
    sigma = levels[picked].repeat_interleave(chunk, 1).to(batch.x0)
    x_t = add_noise(batch.x0, normal(batch.x0.shape, rng, clips.device), sigma)
    return x0_from_velocity(x_t, student(x_t, sigma, batch.text, chunk=chunk), sigma), batch.text


def motion(x: Latent) -> float:
    """Mean absolute difference of successive latent frames."""
    return float((x[:, :, 1:] - x[:, :, :-1]).abs().mean())


def bounds(data: Latent) -> tuple[Bound, ...]:
    """Bounds on the metrics of a healthy run, derived from a sample of the data's latents."""
    deviation, moves = float(data.std()), motion(data)
    return (
        Bound(
            metric="student/std",
            low=0.5 * deviation,
            high=1.6 * deviation,
            too_low="contrast collapses: the student regresses to a mean; a longer start, or a lower learning rate",
            too_high="contrast bursts, pictures burn out; lower guidance_scale or the student's learning rate",
        ),
        Bound(
            metric="student/motion",
            low=0.25 * moves,
            too_low="motion collapses into still pictures; fewer steps, a higher shift, or a better start",
        ),
        Bound(
            metric="student/gradient",
            high=3.0,
            too_high="critic and teacher are far apart: the critic does not follow; more critic_updates, or a higher "
            "learning rate for the critic",
        ),
    )


def run(stage: DmdStage, context: Context, name: str = STAGE) -> bool:
    """Distil the student, or tune it if `name` is `TUNING`; return False when a limit stopped it first."""
    preset = context.preset
    before = {"ode_init": ODE_INIT, "consistency": CONSISTENCY, "teacher": TEACHER, "dmd": STAGE}[stage.start]
    needed = tuple(dict.fromkeys((LATENTS, TEACHER, before, stage.score)))
    context.begin(name, stage, preset.stream, preset.student, after=needed)
    if context.done(name):
        return True
    begun = load_dit(context, context.folder(before), "teacher" if before == TEACHER else "student")
    student = placed(begun, context, stage.loop)
    critic = placed(load_dit(context, context.folder(TEACHER), "teacher"), context, stage.loop)
    teacher = placed(load_dit(context, context.folder(stage.score), stage.score), context, stage.loop)
    teacher.requires_grad_(requires_grad=False)
    clips = LatentClips(context.folder(LATENTS), context.encoder, preset.stream.chunk, context.device)
    ema = EMA(student, stage.loop.ema_decay)
    uncond = clips.unconditional(stage.batch)
    judge = stage.loop.maybe_compile(critic)
    follow, follow_forced = stage.loop.maybe_compile(teacher), stage.loop.maybe_compile(teacher.forward_teacher_forced)

    def make(step: int, rng: torch.Generator) -> tuple[Latent, TextStates]:
        """Clip generated by the student, and its text."""
        if stage.inputs == "data":
            return clip_from_data(stage, preset, student, clips, rng)
        return clip_by_rollout(stage, preset, student, clips, rng, step)

    def level(x: Latent, rng: torch.Generator) -> tuple[Latent, Sigma]:
        sigma = uniform_sigma((len(x), 1), stage.shift, rng).to(x).expand(-1, x.shape[2])
        return normal(x.shape, rng, context.device), sigma

    def follow_after(x: Latent) -> Velocity:
        """Velocity of the teacher for a noised x; an autoregressive teacher reads the clean x before each chunk."""
        if stage.score == TEACHER:
            return follow
        return lambda x_t, sigma, text: follow_forced(x, x_t, sigma, text, preset.stream.chunk)

    def student_loss(step: int, rng: torch.Generator) -> tuple[Tensor, Mapping[str, float]]:
        x, text = make(step, rng)
        eps, sigma = level(x, rng)
        fake, real = scores(follow_after(x.detach()), judge, x.detach(), eps, sigma, text, uncond, stage.guidance_scale)
        gradient = dmd_gradient(x.detach(), fake, real)
        return dmd_loss(x, gradient), {
            "gradient": float(gradient.abs().mean()),
            "std": float(x.detach().std()),
            "motion": motion(x.detach()),
        }

    def critic_loss(step: int, rng: torch.Generator) -> tuple[Tensor, Mapping[str, float]]:
        with torch.no_grad():
            x, text = make(step, rng)
        eps, sigma = level(x, rng)
        # The loss compares velocities: conversion from x0 would divide rounding errors by sigma.
        v = judge(add_noise(x, eps, sigma), sigma, text)
        error = (v - velocity(x, eps)).square().mean()
        return error, {"loss": float(error.detach())}

    return train_and_keep(
        context,
        name,
        stage.loop,
        [
            Trainee(
                name="student",
                net=student,
                optim=stage.loop.optim,
                loss=student_loss,
                every=stage.critic_updates,
                ema=ema,
            ),
            Trainee(name="critic", net=critic, optim=stage.critic, loss=critic_loss),
        ],
        sheet=lambda path: student_sheet(context, student, ema, path),
        health=Health(bounds(clips.latents[:256].float())),
    )

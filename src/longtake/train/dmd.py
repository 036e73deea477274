"""Stage 6: asymmetric distribution matching distillation (DMD, Yin et al. 2024; CausVid, sec. 4.3).

The causal student makes a clip, by its own rollout (Self-Forcing) or from noised data (CausVid). The bidirectional
teacher says where the data lie, the critic, trained all along on the student's clips, says where the student's
lie; their difference at a random noise level is the student's gradient:

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
TUNING = "tuning"  # the same once more, on long rollouts under changing prompts


@dataclass(frozen=True, kw_only=True, slots=True)
class DmdStage:
    """How the student is distilled. `loop.optim` is the student's."""

    loop: LoopConfig
    critic: OptimConfig
    batch: int
    latent_frames: int  # that are scored, the last of the rollout
    rollout_frames: int  # the longest rollout; beyond the window, the student meets its own evicted memory
    shift: float  # of the noise levels at which teacher and critic are asked
    guidance_scale: float
    critic_updates: int = 5  # for each of the student's
    inputs: Literal["rollout", "data"] = "rollout"  # what the student makes its clips from
    start: Literal["ode_init", "consistency", "teacher", "dmd"] = "ode_init"  # the stage that the student begins with
    score: Literal["teacher", "ar_teacher"] = "teacher"  # the stage whose network says where the data lie
    recache: bool = False  # rebuild memory where a prompt changes, as a take does; rollouts may then outlast a clip


def dmd_gradient(x: Latent, x0_critic: Latent, x0_teacher: Latent) -> Latent:
    """(x0_critic - x0_teacher) over the mean distance of x from the teacher's x0, per sample (DMD, eq. 8)."""
    scale = (x - x0_teacher).abs().mean((1, 2, 3, 4), keepdim=True).clamp(min=1e-4)
    return (x0_critic - x0_teacher) / scale


def dmd_loss(x: Latent, gradient: Latent) -> Tensor:
    """A scalar whose gradient by `x` is `gradient / x.numel()`."""
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
    """x0 as the critic and as the guided teacher see it, at noise level sigma."""
    x_t = add_noise(x, eps, sigma)
    fake = critic(x_t, sigma, text)
    real = guide(teacher(x_t, sigma, text), teacher(x_t, sigma, uncond), guidance_scale)
    return x0_from_velocity(x_t, fake, sigma), x0_from_velocity(x_t, real, sigma)


def clip_by_rollout(
    stage: DmdStage, preset: Preset, student: DiT, clips: LatentClips, rng: torch.Generator, step: int
) -> tuple[Latent, TextStates]:
    """Chunk after chunk on the student's own memory (Self-Forcing). Only the captions of the batch are used.

    A rollout that outlasts a clip begins under other clips' captions, so its prompt changes; what is scored lies after
    the last of these changes, or begins with it.

    How many passes that takes is drawn once a step: processes that share it go through their shards together.
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
    """Every chunk of a real clip at one of the student's levels, the clean end included, in one causal pass.

    CausVid, alg. 1. A clean chunk stays what it is: it is there to be looked back at.
    """
    chunk = preset.stream.chunk
    batch = clips.draw(stage.batch, stage.latent_frames, rng)
    levels = torch.tensor((*sigmas_of(preset.student), 0.0), dtype=torch.float32)
    picked = torch.randint(len(levels), (stage.batch, stage.latent_frames // chunk), generator=rng)
    sigma = levels[picked].repeat_interleave(chunk, 1).to(batch.x0)
    x_t = add_noise(batch.x0, normal(batch.x0.shape, rng, clips.device), sigma)
    return x0_from_velocity(x_t, student(x_t, sigma, batch.text, chunk=chunk), sigma), batch.text


def motion(x: Latent) -> float:
    """Mean absolute difference of neighbouring latent frames."""
    return float((x[:, :, 1:] - x[:, :, :-1]).abs().mean())


def bounds(data: Latent) -> tuple[Bound, ...]:
    """What a student that learns stays within, given some of the data."""
    deviation, moves = float(data.std()), motion(data)
    return (
        Bound(
            figure="student/std",
            low=0.5 * deviation,
            high=1.6 * deviation,
            too_low="contrast collapses: the student regresses to a mean; a longer start, or a lower learning rate",
            too_high="contrast bursts, pictures burn out; lower guidance_scale or the student's learning rate",
        ),
        Bound(
            figure="student/motion",
            low=0.25 * moves,
            too_low="motion collapses into still pictures; fewer steps, a higher shift, or a better start",
        ),
        Bound(
            figure="student/gradient",
            high=3.0,
            too_high="critic and teacher are far apart: the critic does not follow; more critic_updates, or a higher "
            "learning rate for the critic",
        ),
    )


def run(stage: DmdStage, context: Context, name: str = STAGE) -> bool:
    """Distil, or tune under the name of `TUNING`; False when a limit came first."""
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
        """A clip by the student, and its text."""
        if stage.inputs == "data":
            return clip_from_data(stage, preset, student, clips, rng)
        return clip_by_rollout(stage, preset, student, clips, rng, step)

    def level(x: Latent, rng: torch.Generator) -> tuple[Latent, Sigma]:
        sigma = uniform_sigma((len(x), 1), stage.shift, rng).to(x).expand(-1, x.shape[2])
        return normal(x.shape, rng, context.device), sigma

    def follow_after(x: Latent) -> Velocity:
        """The teacher, asked about a clip; an autoregressive one sees the clip's own past before each chunk."""
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
        # The network's own velocity: going through x0 would divide its rounding by sigma.
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

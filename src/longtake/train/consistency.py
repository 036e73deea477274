"""Initialisation by causal consistency distillation (Causal Forcing++, Zhu et al. 2026; Song et al. 2023).

Given the clean past, the student must predict the same x0 from a noisy chunk and from that chunk after one solver step
of the autoregressive teacher's ODE:

    x_s = x_t + (s - t) v_teacher(x_t)        minimise | x0_student(x_t, t) - stopgrad(x0_average(x_s, s)) |^2

where s follows t on a fine schedule, and x0_average comes from the exponential moving average of the student's weights.
No trajectories are stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from longtake.flow.guidance import guide
from longtake.flow.path import add_noise, per_frame, x0_from_velocity
from longtake.flow.schedule import solver_sigmas
from longtake.train.ar_teacher import STAGE as AR_TEACHER
from longtake.train.ar_teacher import mean_of_learnable
from longtake.train.batches import LatentClips, normal
from longtake.train.ema import EMA
from longtake.train.latents import STAGE as LATENTS
from longtake.train.loop import LoopConfig
from longtake.train.sheets import averaged, student_sheet
from longtake.train.stage import Context, train_and_keep
from longtake.train.teacher import load_dit, placed
from longtake.train.trainee import Trainee

STAGE = "consistency"


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsistencyStage:
    """Configuration of the initialisation; predictions must agree at neighbours of a schedule of `num_steps` steps."""

    loop: LoopConfig
    batch: int
    latent_frames: int
    num_steps: int
    guidance_scale: float


def run(stage: ConsistencyStage, context: Context) -> bool:
    """Initialise the student by consistency distillation; return False when a limit stopped it first."""
    preset = context.preset
    chunk = preset.stream.chunk
    context.begin(STAGE, stage, preset.stream, preset.student, after=(LATENTS, AR_TEACHER))
    if context.done(STAGE):
        return True
    teacher = placed(load_dit(context, context.folder(AR_TEACHER), "ar_teacher"), context, stage.loop)
    teacher.requires_grad_(requires_grad=False)
    student = placed(load_dit(context, context.folder(AR_TEACHER), "ar_teacher"), context, stage.loop)
    clips = LatentClips(context.folder(LATENTS), context.encoder, chunk, context.device)
    uncond = clips.unconditional(stage.batch)
    ema = EMA(student, stage.loop.ema_decay)
    follow = stage.loop.maybe_compile(teacher.forward_teacher_forced)
    forward = stage.loop.maybe_compile(student.forward_teacher_forced)
    levels = torch.tensor(solver_sigmas(stage.num_steps, preset.student.shift), dtype=torch.float32)

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, Mapping[str, float]]:
        del step
        batch = clips.draw(stage.batch, stage.latent_frames, rng, inside=True)
        idx = torch.randint(stage.num_steps, (stage.batch, stage.latent_frames // chunk), generator=rng)
        idx = idx.repeat_interleave(chunk, 1)
        sigma, following = levels[idx].to(batch.x0), levels[idx + 1].to(batch.x0)
        x_t = add_noise(batch.x0, normal(batch.x0.shape, rng, context.device), sigma)
        with torch.no_grad():
            cond = follow(batch.x0, x_t, sigma, batch.text, chunk)
            free = follow(batch.x0, x_t, sigma, uncond.expand_as(batch.text), chunk)
            x_s = x_t + per_frame(following - sigma) * guide(cond, free, stage.guidance_scale)
            with averaged(student, ema):
                v = forward(batch.x0, x_s, following, batch.text, chunk)
            target = x0_from_velocity(x_s, v, following)  # equal to x_s at the end of the schedule, sigma = 0
        v = forward(batch.x0, x_t, sigma, batch.text, chunk)
        errors = (x0_from_velocity(x_t, v, sigma) - target).square()
        error = mean_of_learnable(errors, torch.ones_like(errors), batch, chunk)
        return error, {"loss": float(error.detach())}

    return train_and_keep(
        context,
        STAGE,
        stage.loop,
        [Trainee(name="student", net=student, optim=stage.loop.optim, loss=loss, ema=ema)],
        sheet=lambda path: student_sheet(context, student, ema, path),
    )

"""Stage 5: initialisation of the student by regression on the teacher's trajectories (CausVid, sec. 4.2).

Each chunk is at its own point of the trajectory, the clean end included (which trains the clean pass); the network
attends to chunks causally and predicts the end of the trajectory.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from longtake.flow.path import per_frame, x0_from_velocity
from longtake.train.ema import EMA
from longtake.train.loop import LoopConfig
from longtake.train.ode_pairs import STAGE as PAIRS
from longtake.train.ode_pairs import OdePairs
from longtake.train.sheets import student_sheet
from longtake.train.stage import Context, train_and_keep
from longtake.train.teacher import STAGE as TEACHER
from longtake.train.teacher import load_dit, placed
from longtake.train.trainee import Trainee

STAGE = "ode_init"


@dataclass(frozen=True, kw_only=True, slots=True)
class OdeInitStage:
    """Configuration of the student's initialisation."""

    loop: LoopConfig
    batch: int


def run(stage: OdeInitStage, context: Context) -> bool:
    """Initialise the student by ODE regression; return False when a limit stopped it first."""
    context.begin(STAGE, stage, context.preset.stream, after=(TEACHER, PAIRS))
    if context.done(STAGE):
        return True
    student = placed(load_dit(context, context.folder(TEACHER), "teacher"), context, stage.loop)
    pairs = OdePairs.read(context.folder(PAIRS))
    chunk = context.preset.stream.chunk
    ema = EMA(student, stage.loop.ema_decay)
    forward = stage.loop.maybe_compile(student)

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, Mapping[str, float]]:
        del step
        num, levels = pairs.states.shape[:2]
        frames = pairs.states.shape[3]
        rows = torch.randint(num, (stage.batch,), generator=rng)
        level = torch.randint(levels, (stage.batch, frames // chunk), generator=rng)
        level = level.repeat_interleave(chunk, 1)  # [b, f]
        states = pairs.states[rows].to(context.device).float()
        picked = level.to(context.device)[:, None, None, :, None, None]
        x_t = states.take_along_dim(picked.expand(-1, 1, *_sizes(states)), 1).squeeze(1)
        sigma = pairs.sigmas[level].to(context.device)
        v = forward(x_t, sigma, pairs.text[rows].to(context.device).float(), chunk=chunk)
        noisy = per_frame((sigma > 0).float())
        error = (x0_from_velocity(x_t, v, sigma) - states[:, -1]).square() * noisy
        mean = error.mean() / noisy.mean().clamp(min=1e-6)
        return mean, {"loss": float(mean.detach())}

    return train_and_keep(
        context,
        STAGE,
        stage.loop,
        [Trainee(name="student", net=student, optim=stage.loop.optim, loss=loss, ema=ema)],
        sheet=lambda path: student_sheet(context, student, ema, path),
        facts=lambda: {"pairs": len(pairs.states)},
    )


def _sizes(states: Tensor) -> tuple[int, int, int, int]:
    _, _, c, f, h, w = states.shape
    return c, f, h, w

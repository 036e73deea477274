"""Stage 8: the source adapter, a version of the student that follows a source video.

Low-rank corrections and an embedding of the source are trained on top of the finished student, by teacher forcing at
the student's noise levels: each noisy chunk attends to the clean chunks before it and reads the latents of its source.

    minimise | dit([x0 | x_t], sigma, text, source) - (eps - x0) |^2        sigma one of the student's

No distillation is needed: the source determines most of the output, so the paths from noise to it are nearly straight,
and a few steps are enough.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from longtake.flow.path import add_noise, velocity
from longtake.flow.schedule import sigmas_of
from longtake.nets.low_rank import add_low_rank
from longtake.train.batches import LatentClips, normal
from longtake.train.ema import EMA
from longtake.train.loop import LoopConfig
from longtake.train.source_pairs import STAGE as PAIRS
from longtake.train.stage import Context, seeded, train_and_keep
from longtake.train.teacher import load_dit, placed
from longtake.train.trainee import Trainee

STAGE = "source_adapter"


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceAdapterStage:
    """Configuration of the source adapter's training."""

    loop: LoopConfig
    batch: int
    latent_frames: int
    rank: int  # rank of the corrections


def run(stage: SourceAdapterStage, student: str, context: Context) -> bool:
    """Train the source adapter; return False when a limit stopped it first.

    Args:
        stage: configuration of the training.
        student: name of the stage that produced the final student.
        context: the training run.
    """
    chunk = context.preset.stream.chunk
    context.begin(STAGE, stage, context.preset.stream, after=(PAIRS, student))
    if context.done(STAGE):
        return True
    dit = load_dit(context, context.folder(student), "student")
    seeded(stage.loop.seed, lambda: add_low_rank(dit, stage.rank))
    dit.add_source()
    dit = placed(dit, context, stage.loop)
    clips = LatentClips(context.folder(PAIRS), context.encoder, chunk, context.device)
    levels = torch.tensor(sigmas_of(context.preset.student), dtype=torch.float32)
    ema = EMA(dit, stage.loop.ema_decay)
    forward = stage.loop.maybe_compile(dit.forward_teacher_forced)

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, Mapping[str, float]]:
        del step
        batch = clips.draw(stage.batch, stage.latent_frames, rng, inside=True)  # the source tells where things are
        picked = torch.randint(len(levels), (stage.batch, stage.latent_frames // chunk), generator=rng)
        sigma = levels[picked].repeat_interleave(chunk, 1).to(batch.x0)
        eps = normal(batch.x0.shape, rng, context.device)
        v = forward(batch.x0, add_noise(batch.x0, eps, sigma), sigma, batch.text, chunk, batch.source)
        error = (v - velocity(batch.x0, eps)).square().mean()
        return error, {"loss": float(error.detach())}

    return train_and_keep(
        context,
        STAGE,
        stage.loop,
        [Trainee(name="source_adapter", net=dit, optim=stage.loop.optim, loss=loss, ema=ema)],
        facts=lambda: {"clips": len(clips)},
    )

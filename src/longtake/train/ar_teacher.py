"""The autoregressive teacher, trained by teacher forcing (Causal Forcing, Zhu et al. 2026, stage 1).

Each chunk is noised to a level of its own and attends to the clean chunks before it; one pass covers all chunks:

    minimise | dit([x0 | x_t], sigma, text) - (eps - x0) |^2

The first chunk of a clip that begins inside a scene is only context: no past tells where its subject is. The network
learns the distribution that a student samples from: the next chunk given the past. A bidirectional
teacher's trajectory also depends on later chunks, so one past has many endpoints, and a student that regresses on them
learns their blurred mean.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from longtake.flow.path import add_noise, velocity
from longtake.flow.schedule import logit_normal_sigma
from longtake.train.batches import Batch, LatentClips, normal
from longtake.train.ema import EMA
from longtake.train.latents import STAGE as LATENTS
from longtake.train.loop import LoopConfig
from longtake.train.stage import Context, train_and_keep
from longtake.train.teacher import STAGE as TEACHER
from longtake.train.teacher import cell_weights, load_dit, placed
from longtake.train.trainee import Trainee

STAGE = "ar_teacher"


@dataclass(frozen=True, kw_only=True, slots=True)
class ArTeacherStage:
    """Configuration of the autoregressive teacher's training, which starts from the bidirectional teacher's weights."""

    loop: LoopConfig
    batch: int
    latent_frames: int
    shift: float
    caption_dropout: float = 0.1
    subject_weight: float = 1.0  # weight of subjects' cells in the loss, see `TeacherStage`


def run(stage: ArTeacherStage, context: Context) -> bool:
    """Train the autoregressive teacher; return False when a limit stopped it first."""
    chunk = context.preset.stream.chunk
    context.begin(STAGE, stage, context.preset.stream, after=(LATENTS, TEACHER))
    if context.done(STAGE):
        return True
    dit = placed(load_dit(context, context.folder(TEACHER), "teacher"), context, stage.loop)
    clips = LatentClips(context.folder(LATENTS), context.encoder, chunk, context.device)
    ema = EMA(dit, stage.loop.ema_decay)
    forward = stage.loop.maybe_compile(dit.forward_teacher_forced)

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, Mapping[str, float]]:
        del step
        batch = clips.draw(stage.batch, stage.latent_frames, rng, stage.caption_dropout, inside=True)
        sigma = logit_normal_sigma((stage.batch, stage.latent_frames // chunk), stage.shift, rng).to(batch.x0)
        sigma = sigma.repeat_interleave(chunk, 1)
        eps = normal(batch.x0.shape, rng, context.device)
        x_t = add_noise(batch.x0, eps, sigma)
        v = forward(batch.x0, x_t, sigma, batch.text, chunk)
        error = (v - velocity(batch.x0, eps)).square()
        weighted = mean_of_learnable(error, cell_weights(batch, stage.subject_weight), batch, chunk)
        return weighted, {"loss": float(error.detach().mean()), "weighted": float(weighted.detach())}

    return train_and_keep(
        context,
        STAGE,
        stage.loop,
        [Trainee(name="ar_teacher", net=dit, optim=stage.loop.optim, loss=loss, ema=ema)],
    )


def mean_of_learnable(error: Tensor, weights: Tensor, batch: Batch, chunk: int) -> Tensor:
    """Weighted mean of errors, without those of first chunks of clips that begin inside a scene.

    Args:
        error: errors [b, c, f, h, w].
        weights: of the same shape, or of one that expands to it.
        batch: the clips.
        chunk: latent frames per chunk.
    """
    weights = weights.expand_as(error)
    if batch.opens is not None:
        weights = weights.clone()
        weights[~batch.opens, :, :chunk] = 0
    return (error * weights).sum() / weights.sum()

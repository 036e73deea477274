"""Stage 3: the bidirectional teacher, trained by flow matching (Lipman et al. 2023).

    minimise | dit(x_t, sigma, text) - (eps - x0) |^2,   x_t = (1 - sigma) x0 + sigma eps

Training begins with single pictures: a clip shows one scene many times, so the same computation covers many more scenes
as pictures, and appearance is learned before motion.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from longtake.core.errors import ConfigError
from longtake.flow.path import add_noise, velocity
from longtake.flow.schedule import logit_normal_sigma
from longtake.nets.dit import DiT
from longtake.nets.low_rank import add_low_rank
from longtake.train.batches import Batch, LatentClips, normal
from longtake.train.ema import EMA
from longtake.train.latents import OPENINGS_STAGE
from longtake.train.latents import STAGE as LATENTS
from longtake.train.loop import LoopConfig
from longtake.train.sheets import teacher_sheet
from longtake.train.stage import Context, seeded, train_and_keep
from longtake.train.trainee import Trainee
from longtake.weights.checkpoint import load_into, read_weights, weight_files
from longtake.weights.presets import model_folder

STAGE = "teacher"


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """A phase of the curriculum, up to step `until`; clips of 1 latent frame are single pictures.

    Positions in all frames of a clip are decided at higher noise than in a single picture, appearance at lower noise; a
    batch with two shifts covers both.
    """

    until: int
    latent_frames: int
    batch: int
    shifts: tuple[float, ...]  # shifts of the noise levels, assigned to the clips of a batch in turn
    kept: float = 1.0  # share of each latent frame's tokens that take part, drawn uniformly
    layers: int | None = None  # number of layers that are used, evenly spaced (DiT.start_shallow); None: all


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherStage:
    """Configuration of the teacher's training.

    Raises:
        ConfigError: a phase uses some of the layers, but the training starts from weights that use all of them.
    """

    loop: LoopConfig
    phases: tuple[Phase, ...]
    caption_dropout: float = 0.1
    subject_weight: float = 1.0  # weight in the loss of cells that subjects cover; 1: the same as all others
    start: str | None = None  # model whose teacher (or student, without a teacher) provides the initial weights
    lora_rank: int | None = None  # rank of the LoRA that is trained; None: all weights are trained
    lora_alpha: float | None = None  # numerator of the LoRA's scale alpha / rank; None: the rank

    def __post_init__(self) -> None:
        if self.start is not None and any(phase.layers is not None for phase in self.phases):
            raise ConfigError(
                f"{self.start}'s weights use all layers, and training starts from them: leave `layers` out"
            )

    def starting_from(self, model: str) -> "TeacherStage":
        """Configuration that starts from a model's weights, so that all phases use all layers."""
        return replace(self, start=model, phases=tuple(replace(phase, layers=None) for phase in self.phases))

    def phase(self, step: int) -> Phase:
        return next((p for p in self.phases if step < p.until), self.phases[-1])


def run(stage: TeacherStage, context: Context, *, openings: bool = False) -> bool:
    """Train the teacher; return False when a limit stopped it first.

    Args:
        stage: configuration of the training.
        context: the training run.
        openings: whether phases of clips that are short enough learn from the clips of the stage `openings`.
    """
    after = (LATENTS, OPENINGS_STAGE) if openings else (LATENTS,)
    context.begin(STAGE, stage, context.preset.dit, context.preset.stream, after=after)
    if context.done(STAGE):
        return True
    dit = seeded(stage.loop.seed, lambda: DiT(context.preset.dit))
    if stage.start is not None:
        begin_with(dit, stage.start)
    if (rank := stage.lora_rank) is not None:
        seeded(stage.loop.seed, lambda: add_low_rank(dit, rank, stage.lora_alpha))
    if (layers := stage.phases[0].layers) is not None:
        dit.start_shallow(layers)
    dit = placed(dit, context, stage.loop)
    chunk = context.preset.stream.chunk
    data = [LatentClips(context.folder(name), context.encoder, chunk, context.device) for name in after]
    data.sort(key=lambda clips: clips.latent_frames)  # the shortest that are long enough for a phase are drawn from
    ema = EMA(dit, stage.loop.ema_decay)
    forward, sparse = stage.loop.maybe_compile(dit), stage.loop.maybe_compile(dit.forward_sparse)

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, Mapping[str, float]]:
        phase = stage.phase(step)
        dit.depth = phase.layers or context.preset.dit.num_layers
        clips = next(clips for clips in data if clips.latent_frames >= phase.latent_frames)
        batch = clips.draw(phase.batch, phase.latent_frames, rng, stage.caption_dropout)
        shifts = torch.tensor([phase.shifts[i % len(phase.shifts)] for i in range(phase.batch)])
        sigma = logit_normal_sigma((phase.batch, 1), shifts[:, None], rng).to(batch.x0)
        sigma = sigma.expand(-1, phase.latent_frames)
        eps = normal(batch.x0.shape, rng, context.device)
        x_t, wanted = add_noise(batch.x0, eps, sigma), velocity(batch.x0, eps)
        weights = cell_weights(batch, stage.subject_weight)
        if phase.kept < 1:
            kept = kept_tokens(batch.x0.shape, phase.kept, context.preset.dit.patch, rng).to(context.device)
            v = sparse(x_t, sigma, batch.text, kept)
            wanted, weights = (
                each.gather(2, kept[..., None].expand(-1, -1, -1, each.shape[3]))
                for each in (dit.patches(wanted), dit.patches(weights.expand_as(wanted)))
            )
        else:
            v = forward(x_t, sigma, batch.text)
        error = (v - wanted).square()
        weighted = (error * weights).sum() / weights.expand_as(error).sum()
        return weighted, {"loss": float(error.detach().mean()), "weighted": float(weighted.detach())}

    return train_and_keep(
        context,
        STAGE,
        stage.loop,
        [Trainee(name="teacher", net=dit, optim=stage.loop.optim, loss=loss, ema=ema)],
        sheet=lambda path: teacher_sheet(context, dit, ema, path),
        facts=lambda: {"clips": sum(map(len, data))},
    )


def cell_weights(batch: Batch, subject_weight: float) -> Tensor:
    """Loss weights of a batch's cells, [b, 1, f, h, w]: from 1 to `subject_weight` in proportion to the cover."""
    if batch.cover is None:
        return torch.ones_like(batch.x0[:, :1])
    return 1 + (subject_weight - 1) * batch.cover[:, None]


def kept_tokens(shape: torch.Size, share: float, patch: int, rng: torch.Generator) -> Int[Tensor, "b f s"]:
    """Numbers of the tokens of each latent frame that take part, drawn uniformly.

    Tokens of subjects are not preferred: which tokens there are would show the network where a subject is, and at
    inference, where all tokens are there, it would not have learned to decide.

    Args:
        shape: of the latents [b, c, f, h, w].
        share: of the tokens, in (0, 1].
        patch: latent cells of a token's side.
        rng: on the CPU; the draw depends on it alone.
    """
    clips, _, frames, height, width = shape
    order = torch.rand((clips, frames, height * width // patch**2), generator=rng)
    return order.topk(max(1, round(share * order.shape[2])), dim=2).indices


def placed(dit: DiT, context: Context, loop: LoopConfig) -> DiT:
    """Place a network for training, whole or in shards, with the activation checkpointing and precision of `loop`."""
    dit.checkpoint_activations = loop.checkpoint_activations
    return context.ranks.shard(dit, context.device, bf16=loop.bf16)


def begin_with(dit: DiT, model: str) -> None:
    """Load the weights of a model's teacher into a network, or of its student if it has no teacher."""
    folder = model_folder(model)
    name = "teacher" if weight_files(folder, "teacher") else "student"
    load_into(dit, read_weights(folder, name), f"{name} in {folder}")


def load_dit(context: Context, folder: Path, name: str) -> DiT:
    """Load a network that a stage has trained, on the CPU."""
    dit = DiT(context.preset.dit)
    load_into(dit, read_weights(folder, name), str(folder / f"{name}.safetensors"))
    return dit

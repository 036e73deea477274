"""Stage 4: trajectories of the teacher's ODE, stored at the student's noise levels (CausVid, sec. 4.2)."""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from longtake.core.bf16 import has_bf16_units
from longtake.core.configs import SamplingConfig
from longtake.core.errors import ConfigError, TrainingError
from longtake.core.files import atomic
from longtake.core.noise import rng_for
from longtake.core.shapes import Latent, TextStates
from longtake.flow.schedule import sigmas_of, solver_sigmas
from longtake.nets.dit import DiT
from longtake.sample.teacher import teacher_states
from longtake.train.batches import LatentClips, normal
from longtake.train.latents import STAGE as LATENTS
from longtake.train.latents import shard_path
from longtake.train.stage import Context
from longtake.train.teacher import STAGE as TEACHER
from longtake.train.teacher import load_dit

STAGE = "ode_pairs"
SAME_SIGMA = 1e-6

Start = tuple[Latent, TextStates]  # noise, and the text states of the chunks


@dataclass(frozen=True, kw_only=True, slots=True)
class OdePairStage:
    """Number, length and integration steps of the trajectories."""

    num_pairs: int
    batch: int
    num_steps: int  # steps of the teacher's sampler; a multiple of the student's
    latent_frames: int
    seed: int = 0
    bf16: bool = False  # bf16 as in `LoopConfig`


def kept_steps(stage: OdePairStage, student: SamplingConfig) -> tuple[int, ...]:
    """Indices of the trajectory's states that the student learns from, the clean one last.

    Raises:
        ConfigError: the student's noise levels are not among the teacher's.
    """
    if stage.num_steps % student.num_steps:
        raise ConfigError(
            f"the teacher's {stage.num_steps} steps must be a multiple of the student's {student.num_steps}"
        )
    stride = stage.num_steps // student.num_steps
    kept = (*range(0, stage.num_steps, stride), stage.num_steps)
    passed = solver_sigmas(stage.num_steps, student.shift)
    for wanted, found in zip(sigmas_of(student), (passed[step] for step in kept), strict=False):
        if abs(wanted - found) > SAME_SIGMA:
            raise ConfigError(
                f"the student is called at noise level {wanted:g}, where the teacher's {stage.num_steps} steps pass "
                f"{found:.4f}: pairs need a student whose levels are evenly spaced and shifted, as the teacher's are"
            )
    return kept


def run(stage: OdePairStage, context: Context) -> bool:
    """Integrate and store the trajectories not yet in shards; return False when a limit stopped it first.

    Raises:
        ConfigError: the student's noise levels are not among the teacher's.
    """
    preset = context.preset
    kept = kept_steps(stage, preset.student)
    sampling = SamplingConfig(
        num_steps=stage.num_steps,
        shift=preset.student.shift,
        guidance_scale=preset.teacher.guidance_scale,
        guidance_below=preset.teacher.guidance_below,
    )
    folder = context.begin(STAGE, stage, sampling, preset.student, after=(LATENTS, TEACHER))
    if context.done(STAGE):
        return True
    clips = LatentClips(context.folder(LATENTS), context.encoder, preset.stream.chunk, torch.device("cpu"))
    task = PairsTask(
        teacher=load_dit(context, context.folder(TEACHER), "teacher").eval(),
        sampling=sampling,
        kept=kept,
        uncond=clips.unconditional(1),
        bf16=stage.bf16,
        device=context.tasks.device,
    )
    starts = [
        start for start in range(0, stage.num_pairs, stage.batch) if not (folder / f"{start:07d}.safetensors").exists()
    ]

    def drawn(start: int) -> Start:
        rng = rng_for(stage.seed, (STAGE, start))
        batch = clips.draw(min(stage.batch, stage.num_pairs - start), stage.latent_frames, rng)
        return normal(batch.x0.shape, rng, torch.device("cpu")), batch.text

    levels = (*sigmas_of(preset.student), 0.0)
    with closing(context.tasks.map(integrated, task, map(drawn, starts), whole=True)) as made:
        for start, tensors in zip(starts, made, strict=True):
            with atomic(shard_path(folder, start)) as part:
                save_file(tensors, part, {"sigmas": json.dumps(levels)})
            end = min(start + stage.batch, stage.num_pairs)
            context.progress(STAGE, end, stage.num_pairs, {})
            if context.limits.reached() and end < stage.num_pairs:
                return False
    context.finish(STAGE, pairs=stage.num_pairs)
    return True


@dataclass(frozen=True, kw_only=True)
class PairsTask:
    """What all trajectories have in common."""

    teacher: DiT
    sampling: SamplingConfig
    kept: Sequence[int]  # indices of the states to keep
    uncond: TextStates  # states of the empty prompt [1, 1, t, e]
    bf16: bool
    device: torch.device


@torch.no_grad()
def integrated(task: PairsTask, start: Start) -> dict[str, Tensor]:
    """Trajectories that begin at given noise, at the levels to keep: tensors of a shard."""
    noise, text = (each.to(task.device) for each in start)
    teacher, uncond = task.teacher.to(task.device), task.uncond.to(task.device).expand(len(noise), -1, -1, -1)
    states = [noise]
    in_bf16 = task.bf16 and has_bf16_units(task.device)
    with torch.autocast(task.device.type, torch.bfloat16, enabled=in_bf16):
        for step, x in enumerate(teacher_states(teacher, task.sampling, noise, text, uncond), 1):
            if step in task.kept:
                states.append(x)
    return {"states": torch.stack(states, 1).half().cpu(), "text": text.half().cpu()}


@dataclass(frozen=True, kw_only=True)
class OdePairs:
    """All trajectories of a folder, in memory."""

    states: Float[Tensor, "pairs levels c f h w"]  # states at `sigmas`; the last level is x0
    text: Float[Tensor, "pairs g t e"]
    sigmas: Float[Tensor, " levels"]

    @classmethod
    def read(cls, folder: Path) -> "OdePairs":
        """Read all shards of a folder.

        Raises:
            TrainingError: there are no shards, or one is damaged.
        """
        states, text, sigmas = [], [], ""
        for path in sorted(folder.glob("*.safetensors")):
            try:
                with safe_open(path, framework="pt") as shard:
                    states.append(shard.get_tensor("states"))
                    text.append(shard.get_tensor("text"))
                    sigmas = shard.metadata()["sigmas"]
            except (SafetensorError, OSError, KeyError, TypeError) as err:
                raise TrainingError(f"{path} is damaged ({err}); remove it to make it anew") from err
        if not states:
            raise TrainingError(f"no ODE pairs in {folder}; run the stage that makes them first")
        return cls(states=torch.cat(states), text=torch.cat(text), sigmas=torch.tensor(json.loads(sigmas)))

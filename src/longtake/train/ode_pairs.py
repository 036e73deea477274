"""Stage 4: trajectories of the teacher's ODE, stored at the student's noise levels (CausVid, sec. 4.2)."""

import json
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
from longtake.flow.schedule import sigmas_of, solver_sigmas
from longtake.sample.teacher import teacher_states
from longtake.train.batches import LatentClips, normal
from longtake.train.latents import STAGE as LATENTS
from longtake.train.stage import Context
from longtake.train.teacher import STAGE as TEACHER
from longtake.train.teacher import load_dit

STAGE = "ode_pairs"
SAME_SIGMA = 1e-6


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
    dit = load_dit(context, context.folder(TEACHER), "teacher").to(context.device).eval()
    clips = LatentClips(context.folder(LATENTS), context.encoder, preset.stream.chunk, context.device)
    for start in range(0, stage.num_pairs, stage.batch):
        path = folder / f"{start:07d}.safetensors"
        if path.exists():
            continue
        rng = rng_for(stage.seed, (STAGE, start))
        num = min(stage.batch, stage.num_pairs - start)
        batch = clips.draw(num, stage.latent_frames, rng)
        noise = normal(batch.x0.shape, rng, context.device)
        states = [noise]
        uncond = clips.unconditional(num)
        in_bf16 = stage.bf16 and has_bf16_units(context.device)
        with torch.autocast(context.device.type, torch.bfloat16, enabled=in_bf16):
            for step, x in enumerate(teacher_states(dit, sampling, noise, batch.text, uncond), 1):
                if step in kept:
                    states.append(x)
        pairs = torch.stack(states, 1).half().cpu()
        levels = (*sigmas_of(preset.student), 0.0)
        tensors = {"states": pairs, "text": batch.text.half().cpu()}
        with atomic(path) as part:
            save_file(tensors, part, {"sigmas": json.dumps(levels)})
        context.progress(STAGE, start + num, stage.num_pairs, {})
        if context.limits.reached() and start + num < stage.num_pairs:
            return False
    context.finish(STAGE, pairs=stage.num_pairs)
    return True


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

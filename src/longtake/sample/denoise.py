"""Few-step sampler of the student, which denoises one chunk."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from longtake.core.configs import SamplingConfig
from longtake.core.shapes import Latent
from longtake.flow.guidance import guide
from longtake.flow.path import add_noise, x0_from_velocity
from longtake.flow.schedule import sigmas_of
from longtake.nets.blocks import Modulation, TextKV
from longtake.nets.dit import DiT, RotatedContext


@dataclass(frozen=True, slots=True)
class Schedule:
    """Noise levels of the student with the network's modulation at each, computed once."""

    sigmas: tuple[float, ...]
    modulations: tuple[Modulation, ...]
    clean: Modulation  # modulation at sigma = 0, for the clean pass

    @classmethod
    def of(cls, dit: DiT, sampling: SamplingConfig) -> "Schedule":
        """Schedule of a network under its sampling settings."""
        return cls.at(dit, sigmas_of(sampling))

    @classmethod
    @torch.no_grad()
    def at(cls, dit: DiT, sigmas: tuple[float, ...]) -> "Schedule":
        """Schedule of a network at descending noise levels, without the final 0."""
        levels = torch.tensor([*sigmas, 0.0], dtype=torch.float64, device=dit.device)
        tables = [dit.modulation(level.view(1, 1)) for level in levels]
        return cls(sigmas, tuple(tables[:-1]), tables[-1])


@dataclass(frozen=True, slots=True)
class Guidance:
    """Classifier-free guidance, which runs the network twice per step.

    Both runs attend to the same K/V cache, which was written under the prompt.
    """

    scale: float
    uncond: TextKV  # keys and values of the negative prompt, usually the empty one


def denoise(
    dit: DiT,
    schedule: Schedule,
    text: TextKV,
    past: RotatedContext,
    noise: Callable[[int], Latent],
    stop: int | None = None,
    source: Latent | None = None,
    guidance: Guidance | None = None,
) -> Latent:
    """Denoise one chunk to x0 or, with `stop`, to the noisy input of denoising step `stop`.

    Each step predicts x0 and, except for the last, adds fresh noise at the next level (Song et al. 2023,
    multistep consistency sampling).

    Args:
        dit: the student.
        schedule: its noise levels.
        text: cross-attention keys and values of the prompt.
        past: context of the chunk.
        noise: function that returns the unit noise of step i, of the chunk's shape.
        stop: denoising step to stop before; None: run all steps.
        source: latents to begin from, noised to the first level (SDEdit, Meng et al. 2022); a network that reads
            sources also receives them at every step. None: begin from pure noise.
        guidance: classifier-free guidance; None: none, since distillation includes it in the student.
    """
    num_steps = len(schedule.sigmas) if stop is None else stop
    followed = source if dit.reads_source else None
    x_t = noise(0)
    if source is not None:
        x_t = add_noise(source, x_t, x_t.new_full((len(x_t), 1), schedule.sigmas[0]))
    for step in range(num_steps):
        sigma = x_t.new_full((len(x_t), 1), schedule.sigmas[step])
        v = dit.forward_cached(x_t, schedule.modulations[step], text, past, followed)
        if guidance is not None:
            uncond = dit.forward_cached(x_t, schedule.modulations[step], guidance.uncond, past, followed)
            v = guide(v, uncond, guidance.scale)
        x0 = x0_from_velocity(x_t, v, sigma)
        if step + 1 == len(schedule.sigmas):
            return x0
        x_t = add_noise(x0, noise(step + 1), torch.full_like(sigma, schedule.sigmas[step + 1]))
    return x_t

"""One chunk, from noise to x0: the few-step sampler of the student."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from longtake.core.configs import SamplingConfig
from longtake.core.shapes import Latent
from longtake.flow.guidance import guide
from longtake.flow.path import add_noise, x0_from_velocity
from longtake.flow.schedule import sigmas_of
from longtake.nets.dit import DiT, Modulation, RotatedContext, TextKV


@dataclass(frozen=True, slots=True)
class Schedule:
    """The student's noise levels with everything the network derives from them, computed once."""

    sigmas: tuple[float, ...]
    modulations: tuple[Modulation, ...]
    clean: Modulation  # sigma = 0, for the pass that writes memory

    @classmethod
    def of(cls, dit: DiT, sampling: SamplingConfig) -> "Schedule":
        """The table for a network and its sampling settings."""
        return cls.at(dit, sigmas_of(sampling))

    @classmethod
    @torch.no_grad()
    def at(cls, dit: DiT, sigmas: tuple[float, ...]) -> "Schedule":
        """The table for a network and descending noise levels, without the final 0."""
        levels = torch.tensor([*sigmas, 0.0], dtype=torch.float64, device=dit.device)
        tables = [dit.modulation(level.view(1, 1)) for level in levels]
        return cls(sigmas, tuple(tables[:-1]), tables[-1])


@dataclass(frozen=True, slots=True)
class Guidance:
    """Further towards the prompt than the network goes by itself; each step then runs it twice.

    Both runs look at the same memory: that of a take that was told what to show.
    """

    scale: float
    uncond: TextKV  # of the negative prompt, usually the empty one


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
    """x0 of one chunk; or, with `stop`, the noisy input of denoising step `stop`.

    Each step predicts x0 and, but for the last, noises it afresh to the next level (Song et al. 2023,
    multistep consistency sampling).

    Args:
        dit: the student.
        schedule: its noise levels.
        text: cross-attention memory of the prompt.
        past: what came before.
        noise: unit noise of step i, of the chunk's shape.
        stop: denoising step to stop before.
        source: latents to begin from, noised to the first level (SDEdit, Meng et al. 2022); a network that reads
            sources follows them at every level besides. None: noise alone.
        guidance: None: the network's own word, which distillation made guided.
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

"""Noise levels of sampling and of training."""

import torch
from torch import Tensor

from longtake.core.configs import SamplingConfig

NUM_TIMESTEPS = 1000  # scale of the network's timestep embedding: timestep = 1000 sigma, not rounded


def shift_sigma(sigma: Tensor, shift: float | Tensor) -> Tensor:
    """Shifted noise level k s / (1 + (k - 1) s), higher than s for k > 1 (Esser et al. 2024, eq. 23)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def few_step_sigmas(num_steps: int, shift: float) -> tuple[float, ...]:
    """Descending noise levels of the few-step sampler, without the final 0.

    >>> [round(s, 4) for s in few_step_sigmas(4, 5.0)]
    [1.0, 0.9375, 0.8333, 0.625]
    """
    linear = torch.linspace(1, 0, num_steps + 1, dtype=torch.float64)[:-1]
    return tuple(float(sigma) for sigma in shift_sigma(linear, shift))


def sigmas_of(sampling: SamplingConfig, *, first: bool = False) -> tuple[float, ...]:
    """Noise levels of the student: those of its distillation, or else evenly spaced and shifted ones.

    `first` asks for those of a chunk without memory before it, which some students denoise in more steps.
    """
    if first and sampling.first_sigmas:
        return sampling.first_sigmas
    return sampling.sigmas or few_step_sigmas(sampling.num_steps, sampling.shift)


def solver_sigmas(num_steps: int, shift: float) -> tuple[float, ...]:
    """Descending noise levels of the many-step sampler, the final 0 included."""
    return (*few_step_sigmas(num_steps, shift), 0.0)


def logit_normal_sigma(shape: tuple[int, ...], shift: float | Tensor, rng: torch.Generator) -> Tensor:
    """Training noise levels: sigmoid of a unit Gaussian, then shifted (Esser et al. 2024, sec. 3.1).

    `shift` is a number, or a tensor that broadcasts to `shape`.
    """
    return shift_sigma(torch.sigmoid(torch.randn(shape, generator=rng)), shift)


def uniform_sigma(
    shape: tuple[int, ...], shift: float, rng: torch.Generator, low: float = 0.02, high: float = 0.98
) -> Tensor:
    """Noise levels of distribution matching: uniform, shifted, clamped to [low, high] (CausVid sec. 3; DMD2)."""
    return shift_sigma(torch.rand(shape, generator=rng), shift).clamp(low, high)

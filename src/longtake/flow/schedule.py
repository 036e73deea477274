"""Which noise levels are visited, in sampling and in training."""

import torch
from torch import Tensor

from longtake.core.configs import SamplingConfig

NUM_TIMESTEPS = 1000  # the network's clock: timestep = 1000 sigma, never rounded to a grid


def shift_sigma(sigma: Tensor, shift: float | Tensor) -> Tensor:
    """k s / (1 + (k - 1) s): more of the schedule at high noise for k > 1 (Esser et al. 2024, eq. 23)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def few_step_sigmas(num_steps: int, shift: float) -> tuple[float, ...]:
    """Descending noise levels at which the student is called, without the final 0.

    >>> [round(s, 4) for s in few_step_sigmas(4, 5.0)]
    [1.0, 0.9375, 0.8333, 0.625]
    """
    linear = torch.linspace(1, 0, num_steps + 1, dtype=torch.float64)[:-1]
    return tuple(float(sigma) for sigma in shift_sigma(linear, shift))


def sigmas_of(sampling: SamplingConfig) -> tuple[float, ...]:
    """The student's noise levels: those it was distilled at, or evenly spaced and shifted ones."""
    return sampling.sigmas or few_step_sigmas(sampling.num_steps, sampling.shift)


def solver_sigmas(num_steps: int, shift: float) -> tuple[float, ...]:
    """Descending noise levels of a many-step sampler, the final 0 included."""
    return (*few_step_sigmas(num_steps, shift), 0.0)


def logit_normal_sigma(shape: tuple[int, ...], shift: float | Tensor, rng: torch.Generator) -> Tensor:
    """Training noise levels: sigmoid of a unit Gaussian, then shifted (Esser et al. 2024, sec. 3.1).

    `shift` is one number, or one for each element of a tensor that broadcasts to `shape`.
    """
    return shift_sigma(torch.sigmoid(torch.randn(shape, generator=rng)), shift)


def uniform_sigma(
    shape: tuple[int, ...], shift: float, rng: torch.Generator, low: float = 0.02, high: float = 0.98
) -> Tensor:
    """DMD's noise levels: uniform, shifted, clamped to [low, high] (CausVid sec. 3; DMD2)."""
    return shift_sigma(torch.rand(shape, generator=rng), shift).clamp(low, high)

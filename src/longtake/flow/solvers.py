"""Many-step integrators of dx/dsigma = v(x, sigma), from sigma = 1 down to 0."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from longtake.core.shapes import Latent

VelocityFn = Callable[[Latent, float], Latent]


def euler(velocity: VelocityFn, x: Latent, sigmas: Sequence[float]) -> Iterator[Latent]:
    """First order. Yields the state after each step; the last is x0 when `sigmas` ends in 0."""
    for sigma, following in pairwise(sigmas):
        x = x + (following - sigma) * velocity(x, sigma)
        yield x


def heun(velocity: VelocityFn, x: Latent, sigmas: Sequence[float]) -> Iterator[Latent]:
    """Second order, two evaluations a step, at sigma = 0 too. Yields the state after each step."""
    for sigma, following in pairwise(sigmas):
        v = velocity(x, sigma)
        guess = x + (following - sigma) * v
        x = x + (following - sigma) * (v + velocity(guess, following)) / 2
        yield x


def unipc(velocity: VelocityFn, x: Latent, sigmas: Sequence[float]) -> Iterator[Latent]:
    """Second order, one evaluation a step: predictor and corrector (Zhao et al. 2023, UniPC-2 with B2(h) = e^h - 1).

    In half log-SNR l = log((1 - sigma) / sigma), with h = l_next - l and m the predicted x0,

        x_next = sigma_next / sigma x - alpha_next (e^-h - 1) (m + sum of rho_k D_k)

    where D_k are slopes of m: towards the step before, and in the corrector towards the new m as well. What is known of
    the new state corrects it before it is left. The first and the last step are of first order. Yields the state after
    each step, before it is corrected.
    """
    # Pure noise has l = -inf: the step after the first would divide by it.
    half = [math.inf if s == 0 else math.log((1 - s) / s) for s in (min(sigma, 1 - 1e-6) for sigma in sigmas)]
    steps = len(sigmas) - 1
    before, x0s, order = x, list[Latent](), 0
    for i in range(steps):
        x0 = x - sigmas[i] * velocity(x, sigmas[i])
        if i:
            x = _unipc_step(before, [*x0s, x0], sigmas, half, i - 1, order, correct=True)
        order = min(2, i + 1, steps - i)
        x0s = [*x0s, x0][-2:]
        before = x
        x = _unipc_step(x, x0s, sigmas, half, i, order, correct=False)
        yield x


def _unipc_step(
    x: Latent,
    x0s: Sequence[Latent],
    sigmas: Sequence[float],
    half: Sequence[float],
    i: int,
    order: int,
    *,
    correct: bool,
) -> Latent:
    """From level `i` to the next; `x0s` ends with the prediction at `i`, or at the next level if it is to correct."""
    known = x0s[:-1] if correct else x0s
    m, h = known[-1], half[i + 1] - half[i]
    growth = math.expm1(-h)  # also B2 of the paper, with the sign of data prediction
    slope = m.new_zeros(()) if order < 2 else (known[-2] - m) / ((half[i - 1] - half[i]) / h)
    if correct:
        towards = x0s[-1] - m
        if order < 2:
            residual = towards / 2
        else:
            ratio = (half[i - 1] - half[i]) / h
            first = (growth / -h - 1) / growth
            second = 2 * ((growth / -h - 1) / -h - 1 / 2) / growth
            # rho_1 + rho_2 = first, ratio rho_1 + rho_2 = second
            rho = (first - second) / (1 - ratio)
            residual = rho * slope + (first - rho) * towards
    else:
        residual = slope / 2
    return sigmas[i + 1] / sigmas[i] * x - (1 - sigmas[i + 1]) * growth * (m + residual)


SOLVERS = {"euler": euler, "heun": heun, "unipc": unipc}

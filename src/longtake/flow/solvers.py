"""Many-step integrators of dx/dsigma = v(x, sigma), from sigma = 1 down to 0."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from longtake.core.shapes import Latent

VelocityFn = Callable[[Latent, float], Latent]


def euler(velocity: VelocityFn, x: Latent, sigmas: Sequence[float]) -> Iterator[Latent]:
    """Euler's method, of first order. Yields the state after each step; the last is x0 if `sigmas` ends in 0."""
    for sigma, following in pairwise(sigmas):
        x = x + (following - sigma) * velocity(x, sigma)
        yield x


def heun(velocity: VelocityFn, x: Latent, sigmas: Sequence[float]) -> Iterator[Latent]:
    """Heun's method, of second order, with two evaluations a step. Yields the state after each step.

    If `sigmas` ends in 0, the velocity is evaluated at sigma = 0 too.
    """
    for sigma, following in pairwise(sigmas):
        v = velocity(x, sigma)
        guess = x + (following - sigma) * v
        x = x + (following - sigma) * (v + velocity(guess, following)) / 2
        yield x


def unipc(velocity: VelocityFn, x: Latent, sigmas: Sequence[float]) -> Iterator[Latent]:
    """UniPC-2 with B2(h) = e^h - 1: predictor-corrector of second order, one evaluation a step (Zhao et al. 2023).

    In half log-SNR l = log((1 - sigma) / sigma), with h = l_next - l and m the predicted x0,

        x_next = sigma_next / sigma x - alpha_next (e^-h - 1) (m + sum of rho_k D_k)

    where D_k are finite-difference slopes of m: towards the previous level, and in the corrector towards the new level
    too. The corrector uses the evaluation at the new level, so it needs none of its own. The first and the last step
    are of first order. Yields the state after each predictor step, before its correction.
    """
    # At pure noise l = -inf, by which the second step would divide; so sigma is kept just below 1.
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
    """One step from level `i` to level `i + 1`: the predictor, or with `correct` the corrector.

    `x0s` holds the predicted x0 of successive levels, up to level `i`, or up to `i + 1` for the corrector.
    """
    known = x0s[:-1] if correct else x0s
    m, h = known[-1], half[i + 1] - half[i]
    growth = math.expm1(-h)  # B2(-h): B2 of the paper, with the sign of its data-prediction form
    slope = m.new_zeros(()) if order < 2 else (known[-2] - m) / ((half[i - 1] - half[i]) / h)
    if correct:
        towards = x0s[-1] - m
        if order < 2:
            residual = towards / 2
        else:
            ratio = (half[i - 1] - half[i]) / h
            first = (growth / -h - 1) / growth
            second = 2 * ((growth / -h - 1) / -h - 1 / 2) / growth
            # These solve rho_1 + rho_2 = first, ratio rho_1 + rho_2 = second.
            rho = (first - second) / (1 - ratio)
            residual = rho * slope + (first - rho) * towards
    else:
        residual = slope / 2
    return sigmas[i + 1] / sigmas[i] * x - (1 - sigmas[i + 1]) * growth * (m + residual)


SOLVERS = {"euler": euler, "heun": heun, "unipc": unipc}

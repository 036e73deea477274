"""Many-step integrators of dx/dsigma = v(x, sigma), from sigma = 1 down to 0."""

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

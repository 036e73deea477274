"""Figures with their uncertainty, and distances between sets."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.core.noise import rng_for

RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A mean, and between what it lies with 95 % confidence by the bootstrap; `num` values made it."""

    value: float
    low: float
    high: float
    num: int

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def difference(values: Sequence[float], base: Sequence[float]) -> Figure:
    """How much larger the values of the same things are than others of them: prompts' own differences cancel out.

    Raises:
        ValueError: there are not as many.
    """
    return figure([a - b for a, b in zip(values, base, strict=True)])


def figure(values: Sequence[float]) -> Figure:
    """The mean of some values with a percentile bootstrap interval (Efron 1979); always the same for the same values.

    Raises:
        ValueError: there are none.
    """
    if not len(values):
        raise ValueError("a figure needs at least one value")
    x = torch.tensor(values, dtype=torch.float64)
    rows = torch.randint(len(x), (RESAMPLES, len(x)), generator=rng_for(0, ("bootstrap", len(x))))
    means = x[rows].mean(1)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Figure(value=x.mean().item(), low=low, high=high, num=len(x))


def frechet_distance(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> float:
    """Between Gaussians fitted to two sets of features (Dowson and Landau 1982; FVD with other features).

        |mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2)

    It grows with d / n: compare only values of equally many clips.
    """
    a, b = a.double(), b.double()
    c_a, c_b = a.T.cov(), b.T.cov()
    root = _root(c_a)
    cross = torch.linalg.eigvalsh(root @ c_b @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + c_a.trace() + c_b.trace() - 2 * cross
    return distance.clamp(min=0).item()


def spread(features: Float[Tensor, "n d"]) -> float:
    """Mean distance between two different members of a set."""
    return torch.pdist(features).mean().item()


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ (values.clamp(min=0).sqrt()[:, None] * vectors.T)

"""Metrics with confidence intervals, and distances between sets of features."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.core.noise import rng_for

RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A metric: the mean of `num` values, with its 95 % bootstrap confidence interval."""

    value: float
    low: float
    high: float
    num: int

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def difference(values: Sequence[float], base: Sequence[float]) -> Metric:
    """Mean of the paired differences `values - base`, in which the variation between prompts cancels.

    Raises:
        ValueError: the numbers of values differ, or there are none.
    """
    return metric([a - b for a, b in zip(values, base, strict=True)])


def metric(values: Sequence[float]) -> Metric:
    """Mean of some values with a percentile bootstrap interval (Efron 1979); deterministic.

    Raises:
        ValueError: there are no values.
    """
    if not len(values):
        raise ValueError("a metric needs at least one value")
    x = torch.tensor(values, dtype=torch.float64)
    rows = torch.randint(len(x), (RESAMPLES, len(x)), generator=rng_for(0, ("bootstrap", len(x))))
    means = x[rows].mean(1)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Metric(value=x.mean().item(), low=low, high=high, num=len(x))


def frechet_distance(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> float:
    """Frechet distance of Gaussians fitted to two sets of features (Dowson and Landau 1982; FVD with other features).

        |mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2)

    It grows with d / n: compare only values of equal numbers of clips.
    """
    a, b = a.double(), b.double()
    c_a, c_b = a.T.cov(), b.T.cov()
    root = _root(c_a)
    cross = torch.linalg.eigvalsh(root @ c_b @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + c_a.trace() + c_b.trace() - 2 * cross
    return distance.clamp(min=0).item()


def spread(features: Float[Tensor, "n d"]) -> float:
    """Mean Euclidean distance between two different members of a set of features."""
    return torch.pdist(features).mean().item()


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ (values.clamp(min=0).sqrt()[:, None] * vectors.T)

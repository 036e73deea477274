"""Intervals and distances, against closed forms."""

import pytest
import torch

from longtake.evals.statistics import difference, frechet_distance, metric, spread


def gaussian(num: int, mean: float, deviation: float, seed: int) -> torch.Tensor:
    """Features whose sample mean and covariance are exactly those of a round Gaussian."""
    x = torch.randn(num, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).T
    return mean + deviation * x


def test_a_figure_lies_within_its_interval_which_narrows_with_more_values() -> None:
    few, many = metric([0.0, 1.0] * 5), metric([0.0, 1.0] * 500)
    assert few.low < few.value == 0.5 < few.high
    assert few.high - few.low > 5 * (many.high - many.low)
    assert many.high - many.low == pytest.approx(2 * 1.96 * 0.5 / 1000**0.5, rel=0.15)
    assert metric([0.0, 1.0] * 5) == few
    assert metric([3.0]).low == 3
    with pytest.raises(ValueError, match="at least one"):
        metric([])


def test_the_distance_of_gaussians_is_the_closed_form() -> None:
    a = gaussian(50, 0.0, 1.0, 0)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, gaussian(70, 2.0, 1.0, 1)) == pytest.approx(4 * 2.0**2)
    assert frechet_distance(a, gaussian(70, 0.0, 3.0, 1)) == pytest.approx(4 * (3.0 - 1.0) ** 2)


def test_spread_is_the_mean_distance() -> None:
    assert spread(torch.tensor([[0.0, 0.0], [3.0, 4.0]])) == 5
    assert spread(torch.ones(3, 2)) == 0


def test_what_all_have_in_common_cancels_in_a_difference() -> None:
    base = [float(i * i) for i in range(20)]
    apart = difference([value + 0.1 * (1 + i % 2) for i, value in enumerate(base)], base)
    assert 0.1 < apart.low < apart.value == pytest.approx(0.15)
    assert metric(base).high - metric(base).low > 100 * (apart.high - apart.low)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        difference([1.0], base)

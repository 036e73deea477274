"""For Gaussian data everything is known in closed form: x0 ~ N(mean, std^2), elementwise.

x_t ~ N((1 - s) mean, a^2) with a^2 = (1 - s)^2 std^2 + s^2, and v(x, s) = E[eps - x0 | x_t = x] is affine in x.
"""

import math

import pytest
import torch
from torch import Tensor

from longtake.flow.path import add_noise, velocity, velocity_from_x0, x0_from_velocity
from longtake.flow.schedule import few_step_sigmas, shift_sigma, solver_sigmas, uniform_sigma
from longtake.flow.solvers import euler, heun
from longtake.train.dmd import dmd_gradient, dmd_loss

MEAN, STD = 0.7, 0.4


def exact_x0(x: Tensor, sigma: float, mean: float = MEAN, std: float = STD) -> Tensor:
    """E[x0 | x_t = x]."""
    variance = (1 - sigma) ** 2 * std**2 + sigma**2
    return mean + (1 - sigma) * std**2 / variance * (x - (1 - sigma) * mean)


def exact_velocity(x: Tensor, sigma: float) -> Tensor:
    """E[eps - x0 | x_t = x]; at sigma = 0 eps is independent of x."""
    if sigma == 0:
        return -x
    return (x - exact_x0(x, sigma)) / sigma


def exact_end(noise: Tensor) -> Tensor:
    """Where the flow carries a point of pure noise."""
    return MEAN + STD * noise


def error(solver, num_steps: int) -> float:
    noise = torch.linspace(-2, 2, 9, dtype=torch.float64)[None, None, None, None]
    *_, x = solver(exact_velocity, noise, solver_sigmas(num_steps, 1.0))
    return float((x - exact_end(noise)).abs().max())


@pytest.mark.parametrize(("solver", "order"), [(euler, 1), (heun, 2)])
def test_solvers_have_their_order(solver, order: int) -> None:
    coarse, fine = error(solver, 64), error(solver, 128)
    assert abs(math.log2(coarse / fine) - order) < 0.1


def test_control_a_wrong_field_does_not_arrive() -> None:
    noise = torch.ones(1, 1, 1, 1, 1, dtype=torch.float64)
    *_, x = euler(lambda x, s: exact_velocity(x, s) + 1, noise, solver_sigmas(256, 1.0))
    assert abs(float(x) - float(exact_end(noise))) > 0.5


def test_the_conversions_undo_each_other() -> None:
    rng = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(2, 3, 4, 2, 2, generator=rng, dtype=torch.float64) for _ in range(2))
    sigma = torch.rand(2, 4, generator=rng, dtype=torch.float64) * 0.9 + 0.1
    x_t = add_noise(x0, eps, sigma)
    assert (x0_from_velocity(x_t, velocity(x0, eps), sigma) - x0).abs().max() < 1e-12
    assert (velocity_from_x0(x_t, x0, sigma) - velocity(x0, eps)).abs().max() < 1e-12


def test_sigma_zero_is_the_exact_identity() -> None:
    x = torch.randn(1, 1, 2, 2, 2)
    zero = torch.zeros(1, 2)
    assert torch.equal(add_noise(x, torch.randn_like(x), zero), x)
    assert torch.equal(x0_from_velocity(x, torch.randn_like(x), zero), x)


def test_the_published_four_steps() -> None:
    assert few_step_sigmas(4, 5.0) == pytest.approx((1.0, 0.9375, 0.833333333, 0.625))
    assert few_step_sigmas(4, 8.0) == pytest.approx((1.0, 0.96, 0.888888889, 0.727272727))


def test_shift_keeps_the_ends_and_the_order() -> None:
    sigma = torch.linspace(0, 1, 101, dtype=torch.float64)
    for shift in (1.0, 3.0, 8.0):
        warped = shift_sigma(sigma, shift)
        assert warped[0] == 0
        assert warped[-1] == pytest.approx(1)
        assert (warped.diff() > 0).all()
    assert torch.equal(shift_sigma(sigma, 1.0), sigma)


def test_dmd_levels_stay_in_their_range() -> None:
    sigma = uniform_sigma((4000,), 5.0, torch.Generator().manual_seed(0))
    assert 0.0199 <= float(sigma.min()) <= float(sigma.max()) <= 0.9801
    assert abs(float(sigma.median()) - 0.833) < 0.02  # the shifted median
    assert abs(float((sigma >= 0.9799).float().mean()) - 0.092) < 0.02


def test_the_dmd_gradient_vanishes_where_student_and_teacher_agree() -> None:
    x = torch.randn(3, 2, 2, 2, 2)
    score = torch.randn_like(x)
    assert torch.equal(dmd_gradient(x, score, score), torch.zeros_like(x))


def test_the_dmd_gradient_points_from_the_student_to_the_teacher() -> None:
    """Student N(0, std), data N(mean, std): descending the gradient must move the student's mean up."""
    rng = torch.Generator().manual_seed(0)
    x = STD * torch.randn(64, 1, 1, 8, 8, generator=rng, dtype=torch.float64)
    for sigma in (0.2, 0.5, 0.9):
        noise = torch.randn(x.shape, generator=rng, dtype=torch.float64)
        x_t = add_noise(x, noise, torch.full((64, 1), sigma, dtype=torch.float64))
        fake, real = exact_x0(x_t, sigma, mean=0.0), exact_x0(x_t, sigma)
        gradient = dmd_gradient(x, fake, real)
        assert (gradient < 0).all()
        # Both scores are affine with the same slope: their difference is a constant, known exactly.
        shift = (fake - real).unique()
        variance = (1 - sigma) ** 2 * STD**2 + sigma**2
        expected = -MEAN * (1 - (1 - sigma) ** 2 * STD**2 / variance)
        assert (shift - expected).abs().max() < 1e-12


def test_the_dmd_loss_has_the_gradient_it_was_given() -> None:
    x = torch.randn(2, 3, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    gradient = torch.randn_like(x)
    dmd_loss(x, gradient).backward()
    assert x.grad is not None
    assert (x.grad - gradient / x.numel()).abs().max() < 1e-15

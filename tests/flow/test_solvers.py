"""Solvers against another implementation and against closed forms."""

import math

import pytest
import torch
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from longtake.flow.schedule import solver_sigmas
from longtake.flow.solvers import SOLVERS, unipc

DEVIATION = 0.4


def gaussian(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """The velocity of data from N(0, DEVIATION^2): x(sigma) is proportional to the deviation at sigma."""
    variance = ((1 - sigma) * DEVIATION) ** 2 + sigma**2
    return x * (sigma - (1 - sigma) * DEVIATION**2) / variance


def curved(x: torch.Tensor, sigma: float) -> torch.Tensor:
    return torch.tanh(x * (1 + sigma)) - 0.3 * math.sin(5 * sigma) * x


@pytest.mark.parametrize(("steps", "shift"), [(50, 5.0), (12, 8.0), (3, 1.0), (2, 5.0), (1, 3.0)])
def test_unipc_is_that_of_diffusers(steps: int, shift: float) -> None:
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    scheduler.set_timesteps(steps)
    scheduler.sigmas = scheduler.sigmas.double()
    sigmas = scheduler.sigmas.tolist()
    noise = torch.randn(1, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theirs = noise
    for t, sigma in zip(scheduler.timesteps, sigmas, strict=False):
        theirs = scheduler.step(curved(theirs, sigma), t, theirs, return_dict=False)[0]
    *_, ours = unipc(curved, noise, sigmas)
    assert (ours - theirs).abs().max() < 1e-9


def test_more_steps_come_closer_and_unipc_closest() -> None:
    x = torch.ones(1, 1, 1, 1, 1, dtype=torch.float64)
    errors = {
        name: [
            abs(float(list(solve(gaussian, x, solver_sigmas(steps, 3.0)))[-1]) - DEVIATION) for steps in (10, 20, 40)
        ]
        for name, solve in SOLVERS.items()
    }
    for name, (coarse, middle, fine) in errors.items():
        assert coarse > middle > fine, name
    assert errors["unipc"][2] < errors["euler"][2] / 10
    assert errors["unipc"][1] / errors["unipc"][2] > 3  # of second order
    assert errors["euler"][1] / errors["euler"][2] < 3  # which Euler is not


@pytest.mark.parametrize("name", SOLVERS)
def test_every_step_is_seen_and_the_last_is_x0(name: str) -> None:
    x = torch.ones(1, 1, 1, 1, 1, dtype=torch.float64)
    states = list(
        SOLVERS[name](lambda x, sigma: x - 0.25 if sigma == 1 else (x - 0.25) / sigma, x, (1.0, 0.5, 0.25, 0.0))
    )
    assert len(states) == 3
    assert states[-1].item() == pytest.approx(0.25) or name == "heun"  # which divides by the last sigma here

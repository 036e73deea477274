"""Many-step sampler of the teacher, which denoises a whole clip at once with classifier-free guidance."""

from collections.abc import Iterator

import torch

from longtake.core.configs import SamplingConfig
from longtake.core.shapes import Latent, TextStates
from longtake.flow.guidance import guide
from longtake.flow.schedule import solver_sigmas
from longtake.flow.solvers import SOLVERS
from longtake.nets.dit import DiT


def teacher_states(
    dit: DiT, sampling: SamplingConfig, noise: Latent, text: TextStates, uncond: TextStates
) -> Iterator[Latent]:
    """Yield the clip after each step of the solver, from noise to x0.

    Args:
        dit: the teacher.
        sampling: solver, number of steps, shift and guidance scale.
        noise: unit noise [b, c, f, h, w].
        text: states of the prompts [b, g, t, e].
        uncond: states of the negative prompt [b, 1, t, e], usually the empty one.
    """

    # `no_grad` is on the inner function, since the outer one only returns a generator, which runs outside of it.
    @torch.no_grad()
    def velocity(x: Latent, sigma: float) -> Latent:
        level = x.new_full((len(x), x.shape[2]), sigma)
        cond = dit(x, level, text)
        if sampling.guidance_scale == 1 or sigma > sampling.guidance_below:
            return cond
        return guide(cond, dit(x, level, uncond), sampling.guidance_scale)

    return SOLVERS[sampling.solver](velocity, noise, solver_sigmas(sampling.num_steps, sampling.shift))


def teacher_clip(dit: DiT, sampling: SamplingConfig, noise: Latent, text: TextStates, uncond: TextStates) -> Latent:
    """Sample x0 of a whole clip; arguments as for `teacher_states`."""
    x = noise
    for x in teacher_states(dit, sampling, noise, text, uncond):  # noqa: B007  (the last state is the result)
        pass
    return x

"""The teacher's sampler."""

from dataclasses import replace

import torch

from longtake.core.configs import SamplingConfig
from longtake.sample.teacher import teacher_clip, teacher_states
from tests.tiny import DIT, random_dit

SAMPLING = SamplingConfig(num_steps=3, shift=3.0, guidance_scale=2.0)


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(2, DIT.in_dim, 6, 4, 6, generator=rng, dtype=torch.float64)
    text = torch.randn(2, 2, DIT.text_len, DIT.text_dim, generator=rng, dtype=torch.float64)
    return noise, text, torch.zeros_like(text[:, :1])


def test_sampling_keeps_no_graph() -> None:
    """A trainable network must not pile up activations step after step."""
    dit = random_dit()
    assert next(dit.parameters()).requires_grad
    states = list(teacher_states(dit, SAMPLING, *inputs()))
    assert len(states) == 3
    assert not any(state.requires_grad for state in states)


def test_a_guidance_scale_of_one_is_the_conditional_network() -> None:
    dit = random_dit()
    noise, text, uncond = inputs()
    off = SamplingConfig(num_steps=3, shift=3.0)
    a = teacher_clip(dit, off, noise, text, uncond)
    b = teacher_clip(dit, off, noise, text, torch.ones_like(uncond))
    assert torch.equal(a, b)
    guided = teacher_clip(dit, SAMPLING, noise, text, uncond)
    assert (guided - a).abs().max() > 1e-3


def test_a_batch_of_two_is_two_batches_of_one() -> None:
    dit = random_dit()
    noise, text, uncond = inputs()
    both = teacher_clip(dit, SAMPLING, noise, text, uncond)
    one = teacher_clip(dit, SAMPLING, noise[1:], text[1:], uncond[1:])
    assert (both[1:] - one).abs().max() < 1e-12


def test_guidance_leads_away_from_the_negative_prompt() -> None:
    """One Euler step from pure noise: x0 = noise - v, and v is linear in the scale."""
    dit, one = random_dit(), SamplingConfig(num_steps=1, shift=3.0)
    noise, text, uncond = inputs()
    cond = teacher_clip(dit, one, noise, text, uncond)
    negative = teacher_clip(dit, one, noise, uncond, uncond)
    guided = teacher_clip(dit, replace(one, guidance_scale=3.0), noise, text, uncond)
    assert (guided - (negative + 3 * (cond - negative))).abs().max() < 1e-12


def test_guidance_begins_at_the_noise_level_that_is_set() -> None:
    """Levels of three steps with shift 3: 1, 0.857, 0.6. The state is the unguided one until the first guided step."""
    dit = random_dit()
    free, guided, late = (
        list(teacher_states(dit, sampling, *inputs()))
        for sampling in (
            replace(SAMPLING, guidance_scale=1.0),
            SAMPLING,
            replace(SAMPLING, guidance_below=0.86),
        )
    )
    assert torch.equal(late[0], free[0])
    assert [torch.equal(a, b) for a, b in zip(late, free, strict=True)] == [True, False, False]
    assert not any(torch.equal(a, b) for a, b in zip(late, guided, strict=True))

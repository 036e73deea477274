"""The student's own rollout: what inference does, with gradients only where they belong."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from longtake.core.configs import SamplingConfig, StreamConfig
from longtake.core.cue import Settings
from longtake.core.noise import noise_for
from longtake.flow.path import x0_from_velocity
from longtake.nets.dit import DiT
from longtake.nets.kv_cache import KVCache
from longtake.sample.denoise import Schedule, denoise
from longtake.sample.plans import ChunkPlan
from longtake.sample.sampler import Sampler, rollout
from longtake.train.self_rollout import self_rollout
from tests.tiny import DIT, PRESET, random_codec, random_dit

STREAM = StreamConfig(chunk=3, window=6)
SAMPLING = SamplingConfig(num_steps=3, shift=3.0)
FRAMES, HEIGHT, WIDTH, SEED = 9, 4, 6, 5


def text(batch: int = 1) -> Tensor:
    rng = torch.Generator().manual_seed(2)
    return torch.randn(batch, 3, DIT.text_len, DIT.text_dim, generator=rng, dtype=torch.float64)


def noise(batch: int = 1) -> Tensor:
    """The noise that a rollout with SEED draws, for every step of every chunk."""
    shape = (batch, DIT.in_dim, STREAM.chunk, HEIGHT, WIDTH)
    chunks = [
        torch.stack([noise_for(SEED, ("chunk", idx, "step", s), shape) for s in range(3)])
        for idx in range(FRAMES // STREAM.chunk)
    ]
    return torch.cat(chunks, 3).double()


class States:
    """A text encoder whose prompts are the numbers of `text`."""

    text_len = DIT.text_len

    def __call__(self, prompt: str) -> Tensor:
        return text()[:, int(prompt or 0) : int(prompt or 0) + 1]

    def each(self, prompts: Iterable[str]) -> Iterator[Tensor]:
        return (self(prompt)[0, 0] for prompt in prompts)

    def num_tokens(self, prompt: str) -> int:
        return len(prompt.split())


def test_at_the_last_step_it_equals_the_rollout_of_inference() -> None:
    dit = random_dit()
    preset = replace(PRESET, student=SAMPLING, stream=STREAM)
    sampler = Sampler(preset, dit, random_codec(), States())
    for recache in (False, True):
        plans = [
            ChunkPlan(
                idx=i,
                wording=((str(i), 1.0),),
                settings=Settings(seed=SEED),
                transition="recache" if recache and i else None,
            )
            for i in range(3)
        ]
        streamed = torch.cat([result.latent for result in rollout(sampler, plans)], 2)
        schedule = Schedule.of(dit, SAMPLING)
        trained = self_rollout(dit, schedule, STREAM, text(), noise(), exit_step=2, scored=FRAMES, recache=recache)
        assert (trained - streamed).abs().max() < 1e-12


def test_no_gradient_flows_through_the_cache() -> None:
    """The gradient of the last chunk is that of its exit step alone, with memory as a constant."""
    dit = random_dit()
    schedule = Schedule.of(dit, SAMPLING)
    x = self_rollout(dit, schedule, STREAM, text(), noise(), exit_step=1, scored=FRAMES)
    x[:, :, -3:].square().sum().backward()
    leaked = gradients(dit)

    dit.zero_grad()
    alone, _ = last_chunk_alone(dit, schedule)
    alone.square().sum().backward()
    for name, grad in gradients(dit).items():
        assert (grad - leaked[name]).abs().max() <= 1e-12 * max(1.0, float(grad.abs().max())), name


def test_only_the_scored_chunks_have_a_graph() -> None:
    dit = random_dit()
    schedule = Schedule.of(dit, SAMPLING)
    whole = self_rollout(dit, schedule, STREAM, text(), noise(), exit_step=1, scored=FRAMES)
    last = self_rollout(dit, schedule, STREAM, text(), noise(), exit_step=1, scored=3)
    assert torch.equal(last, whole[:, :, -3:])
    last.square().sum().backward()
    scored = gradients(dit)
    dit.zero_grad()
    whole[:, :, -3:].square().sum().backward()
    for name, grad in gradients(dit).items():
        assert (grad - scored[name]).abs().max() <= 1e-12 * max(1.0, float(grad.abs().max())), name


def test_control_a_gradient_through_the_cache_would_be_seen() -> None:
    dit = random_dit()
    schedule = Schedule.of(dit, SAMPLING)
    x, past_k = last_chunk_alone(dit, schedule, attached=True)
    x.square().sum().backward()
    assert past_k.grad is not None
    assert past_k.grad.abs().max() > 1e-9


def gradients(dit: DiT) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in dit.named_parameters() if p.grad is not None}


def last_chunk_alone(dit: DiT, schedule: Schedule, *, attached: bool = False) -> tuple[Tensor, Tensor]:
    """x0 of the third chunk at exit step 1, on memory built without gradients; and the remembered keys."""
    cache = KVCache()
    with torch.no_grad():
        for idx in range(2):
            own = noise()[:, :, :, idx * 3 : idx * 3 + 3]
            words = dit.project_text(text()[:, idx : idx + 1])
            past = dit.rotated_context(cache, own[0].shape)
            x_t = denoise(dit, schedule, words, past, lambda i, own=own: own[i], stop=1)
            level = x_t.new_full((1, 1), schedule.sigmas[1])
            v = dit.forward_cached(x_t, dit.modulation(level), words, past)
            x0 = x0_from_velocity(x_t, v, level)
            cache = cache.append(dit.clean_pass(x0, schedule.clean, words, past), STREAM)
        own = noise()[:, :, :, 6:9]
        words = dit.project_text(text()[:, 2:3])
        past = dit.rotated_context(cache, own[0].shape)
        x_t = denoise(dit, schedule, words, past, lambda i: own[i], stop=1)
    assert past.kv is not None
    if attached:
        past.kv[0].requires_grad_()
    level = x_t.new_full((1, 1), schedule.sigmas[1])
    v = dit.forward_cached(x_t, dit.modulation(level), dit.project_text(text()[:, 2:3]), past)
    return x0_from_velocity(x_t, v, level), past.kv[0]


def test_where_the_words_change_memory_is_made_anew_as_a_cue_does() -> None:
    dit, stream = random_dit(), replace(STREAM, window=9)
    schedule = Schedule.of(dit, SAMPLING)
    words = text()[:, [0, 0, 2]]
    with torch.no_grad():
        kept = self_rollout(dit, schedule, stream, words, noise(), exit_step=2, scored=FRAMES)
        anew = self_rollout(dit, schedule, stream, words, noise(), exit_step=2, scored=FRAMES, recache=True)
        assert torch.equal(anew[:, :, :6], kept[:, :, :6])
        assert (anew[:, :, 6:] - kept[:, :, 6:]).abs().max() > 1e-3

        read = dit.project_text(words[:, 2:])
        cache = KVCache()
        for own in anew[:, :, :6].split(3, 2):
            cache = cache.append(
                dit.clean_pass(own, schedule.clean, read, dit.rotated_context(cache, own.shape)), stream
            )
        shape = anew[:, :, 6:].shape
        last = denoise(dit, schedule, read, dit.rotated_context(cache, shape), lambda i: noise()[i, :, :, 6:])
    assert (anew[:, :, 6:] - last).abs().max() < 1e-12

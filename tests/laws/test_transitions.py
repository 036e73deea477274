"""What each transition does to memory, against blocks computed by hand from the latents that were shown."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from longtake.core.configs import StreamConfig
from longtake.core.cue import Settings, Transition
from longtake.core.noise import noise_for
from longtake.flow.schedule import few_step_sigmas
from longtake.nets.dit import DiT
from longtake.nets.kv_cache import Block, KVCache
from longtake.sample.denoise import Schedule
from longtake.sample.memory import Memory
from longtake.sample.plans import ChunkPlan, InitFrames
from longtake.sample.sampler import ChunkRequest, ChunkResult, Sampler, rollout
from tests.tiny import DIT, PRESET, random_codec, random_dit

STREAM = StreamConfig(chunk=3, window=12, sink=3)
CHUNKS = 6  # the window is full before the transition


class NoisyStates:
    """Text states that depend on the prompt, fp64."""

    text_len = DIT.text_len

    def __call__(self, prompt: str) -> Tensor:
        return noise_for(0, ("prompt", prompt), (1, 1, DIT.text_len, DIT.text_dim)).double()

    def each(self, prompts: Iterable[str]) -> Iterator[Tensor]:
        return (self(prompt)[0, 0] for prompt in prompts)

    def num_tokens(self, prompt: str) -> int:
        return len(prompt.split())


@pytest.fixture(scope="module")
def dit() -> DiT:
    return random_dit()


@pytest.fixture(scope="module")
def sampler(dit: DiT) -> Sampler:
    return Sampler(replace(PRESET, stream=STREAM), dit, random_codec(), NoisyStates())


@pytest.fixture(scope="module")
def shown(sampler: Sampler) -> list[ChunkResult]:
    plans = (ChunkPlan(idx=i, wording=(("a tiger", 1.0),), settings=Settings(seed=1)) for i in range(CHUNKS))
    return list(rollout(sampler, plans))


def after(sampler: Sampler, memory: Memory, transition: Transition | None, prompt: str = "a car") -> ChunkResult:
    plan = ChunkPlan(idx=CHUNKS, wording=((prompt, 1.0),), settings=Settings(seed=1), transition=transition)
    (result,) = sampler.step([ChunkRequest(plan=plan, memory=memory)])
    assert result is not None
    return result


@torch.no_grad()
def by_hand(dit: DiT, pieces: Sequence[tuple[int, Tensor]], prompt: str) -> list[Block]:
    """Blocks of latents under one prompt at sigma 0, each reading those before it."""
    text = dit.project_text(NoisyStates()(prompt))
    zero = dit.modulation(torch.zeros(1, 1, dtype=torch.float64))
    blocks: list[Block] = []
    for start, latent in pieces:
        cache = KVCache(tuple(blocks), start)
        blocks.append(dit.clean_pass(latent, zero, text, dit.rotated_context(cache, latent.shape)))
    return blocks


def assert_same(found: Sequence[Block], expected: Sequence[Block]) -> None:
    assert [(b.start, b.stop) for b in found] == [(b.start, b.stop) for b in expected]
    for a, b in zip(found, expected, strict=True):
        assert (a.k - b.k).abs().max() < 1e-12
        assert (a.v - b.v).abs().max() < 1e-12
        assert torch.equal(a.latent, b.latent)


def test_the_clean_pass_is_at_noise_level_zero(dit: DiT) -> None:
    zero = dit.modulation(torch.zeros(1, 1, dtype=torch.float64))
    clean = Schedule.of(dit, PRESET.student).clean
    assert torch.equal(clean.blocks, zero.blocks)
    assert torch.equal(clean.head, zero.head)


def test_without_a_transition_each_block_is_written_under_its_own_prompt(
    dit: DiT, sampler: Sampler, shown: list[ChunkResult]
) -> None:
    memory = after(sampler, shown[-1].memory, None).memory
    latents = [result.latent for result in shown]
    whole = by_hand(dit, [(3 * i, latent) for i, latent in enumerate(latents[:2])], "a tiger")
    assert [b.start for b in memory.cache.blocks] == [0, 12, 15]  # the sink, and what fits beside the next chunk
    assert_same(shown[2].memory.cache.blocks[:2], whole)
    last = memory.cache.blocks[-1]
    assert torch.equal(last.latent, latents[-1])
    before = shown[-1].memory.cache
    text = dit.project_text(NoisyStates()("a tiger"))
    zero = dit.modulation(torch.zeros(1, 1, dtype=torch.float64))
    with torch.no_grad():
        expected = dit.clean_pass(latents[-1], zero, text, dit.rotated_context(before, latents[-1].shape))
    assert_same([last], [expected])


def test_a_recache_is_the_kept_latents_under_the_new_prompt(
    dit: DiT, sampler: Sampler, shown: list[ChunkResult]
) -> None:
    memory = after(sampler, shown[-1].memory, "recache").memory
    pieces = [(3 * i, shown[i].latent) for i in (0, 4, 5)]
    assert_same(memory.cache.blocks, by_hand(dit, pieces, "a car"))
    old = by_hand(dit, pieces, "a tiger")
    assert (memory.cache.blocks[-1].v - old[-1].v).abs().max() > 1e-3


def test_a_flush_keeps_the_sink_as_it_is_and_the_last_latent_frame_under_the_new_prompt(
    dit: DiT, sampler: Sampler, shown: list[ChunkResult]
) -> None:
    memory = after(sampler, shown[-1].memory, "flush").memory
    sink, last = memory.cache.blocks
    assert sink is shown[-1].memory.cache.blocks[0]
    assert (last.start, last.stop) == (17, 18)
    assert torch.equal(last.latent, shown[-1].latent[:, :, -1:])
    text = dit.project_text(NoisyStates()("a car"))
    zero = dit.modulation(torch.zeros(1, 1, dtype=torch.float64))
    with torch.no_grad():
        past = dit.rotated_context(KVCache((sink,), 17), last.latent.shape)
        assert_same([last], [dit.clean_pass(last.latent, zero, text, past)])


def test_a_cut_is_the_beginning_of_another_take(sampler: Sampler, shown: list[ChunkResult]) -> None:
    cut = after(sampler, shown[-1].memory, "cut")
    fresh = after(sampler, Memory(), None)
    assert cut.memory.cache == KVCache(stop=18)
    assert torch.equal(cut.pictures, fresh.pictures)
    assert len(cut.pictures) == 9
    assert len(after(sampler, shown[-1].memory, "flush").pictures) == 12


def test_a_prefill_is_the_codecs_latents_under_the_prompt(dit: DiT, sampler: Sampler) -> None:
    pictures = torch.randint(0, 256, (21, 32, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    given = InitFrames(chunks=2, frames=21, pictures=pictures)
    plan = ChunkPlan(idx=1, wording=(("a tiger", 1.0),), settings=Settings(seed=1), given=given)
    (result,) = sampler.step([ChunkRequest(plan=plan)])
    assert result is not None
    assert torch.equal(result.memory.newest, result.latent[:, :, 3:])  # type: ignore[arg-type]
    assert result.memory.cache.stop == 3
    assert_same(result.memory.cache.blocks, by_hand(dit, [(0, result.latent[:, :, :3])], "a tiger"))


def test_guidance_goes_from_the_negative_prompt_to_the_prompt(sampler: Sampler) -> None:
    plan = ChunkPlan(idx=0, wording=(("a car", 1.0),), settings=Settings(seed=1, steps=1))
    (plain,) = sampler.step([ChunkRequest(plan=plan)])
    (negative,) = sampler.step([ChunkRequest(plan=replace(plan, wording=((PRESET.negative_prompt, 1.0),)))])
    (guided,) = sampler.step([ChunkRequest(plan=replace(plan, settings=replace(plan.settings, guidance=3.0)))])
    assert plain is not None
    assert negative is not None
    assert guided is not None
    expected = negative.latent + 3.0 * (plain.latent - negative.latent)
    assert (guided.latent - expected).abs().max() < 1e-12


@torch.no_grad()
def test_each_denoising_step_predicts_x0_and_renoises_it_with_noise_of_its_own(dit: DiT, sampler: Sampler) -> None:
    (result,) = sampler.step(
        [ChunkRequest(plan=ChunkPlan(idx=0, wording=(("a car", 1.0),), settings=Settings(seed=4)))]
    )
    assert result is not None
    shape = (1, DIT.in_dim, STREAM.chunk, 4, 6)
    text, sigmas = dit.project_text(NoisyStates()("a car")), few_step_sigmas(2, PRESET.student.shift)
    x = noise_for(4, ("chunk", 0, "step", 0), shape).double()
    x0 = x
    for step, sigma in enumerate(sigmas):
        level = torch.full((1, 1), sigma, dtype=torch.float64)
        past = dit.rotated_context(KVCache(), shape)
        x0 = x - sigma * dit.forward_cached(x, dit.modulation(level), text, past)
        if step + 1 < len(sigmas):
            following = sigmas[step + 1]
            x = (1 - following) * x0 + following * noise_for(4, ("chunk", 0, "step", step + 1), shape).double()
    assert (result.latent - x0).abs().max() < 1e-12


def test_a_chunk_without_memory_has_noise_levels_of_its_own(dit: DiT, monkeypatch: pytest.MonkeyPatch) -> None:
    """Causal-Forcing++: a student of one or two steps denoises the first chunk in more."""
    sampling = replace(PRESET.student, num_steps=1, first_sigmas=(1.0, 0.8, 0.5))
    own = Sampler(replace(PRESET, stream=STREAM, student=sampling), dit, random_codec(), NoisyStates())
    calls: list[int] = []
    forward = dit.forward_cached
    monkeypatch.setattr(dit, "forward_cached", lambda *given: (calls.append(1), forward(*given))[1])
    steps = []
    transitions: tuple[Transition | None, ...] = (None, None, "recache", "cut", None)
    plans = (
        ChunkPlan(idx=i, wording=((f"prompt {transition}", 1.0),), transition=transition)
        for i, transition in enumerate(transitions)
    )
    for _ in rollout(own, plans):
        steps.append(len(calls))
        calls.clear()
    assert steps == [3, 1, 1, 3, 1]

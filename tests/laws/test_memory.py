"""Cached rollout equals masked forward, in fp64 to 1e-12, with controls that must fail."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from longtake.core.configs import DiTConfig, StreamConfig
from longtake.core.errors import ShapeError
from longtake.nets.dit import DiT, RotatedContext
from longtake.nets.kv_cache import KVCache
from longtake.nets.rope import rope_for
from tests.tiny import DIT, STREAM, random_dit

CHUNK, FRAMES, HEIGHT, WIDTH = 3, 12, 4, 6
NUM_CHUNKS = FRAMES // CHUNK
TOLERANCE = 1e-12
WHOLE = StreamConfig(chunk=CHUNK, window=FRAMES)


def inputs(batch: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x_t, x0, sigma (one level a chunk) and a text for every chunk."""
    rng = torch.Generator().manual_seed(1)
    shape = (batch, DIT.in_dim, FRAMES, HEIGHT, WIDTH)
    x_t, x0 = (torch.randn(shape, generator=rng, dtype=torch.float64) for _ in range(2))
    sigma = torch.rand(batch, NUM_CHUNKS, generator=rng, dtype=torch.float64)
    text = torch.randn(batch, NUM_CHUNKS, DIT.text_len, DIT.text_dim, generator=rng, dtype=torch.float64)
    return x_t, x0, sigma.repeat_interleave(CHUNK, 1), text


def cached(
    dit: DiT,
    x_t: Tensor,
    remembered: Tensor,
    sigma: Tensor,
    memory_sigma: Tensor,
    text: Tensor,
    stream: StreamConfig,
    source: Tensor | None = None,
) -> Tensor:
    """Chunk by chunk through the cache; what is remembered of a chunk is given."""
    cache, out = KVCache(), []
    for idx in range(NUM_CHUNKS):
        own = slice(idx * CHUNK, (idx + 1) * CHUNK)
        words = dit.project_text(text[:, idx : idx + 1])
        past = dit.rotated_context(cache, x_t[:, :, own].shape)
        level = dit.modulation(sigma[:, own.start : own.start + 1])
        followed = None if source is None else source[:, :, own]
        out.append(dit.forward_cached(x_t[:, :, own], level, words, past, followed))
        clean = dit.modulation(memory_sigma[:, own.start : own.start + 1])
        cache = cache.append(dit.clean_pass(remembered[:, :, own], clean, words, past), stream)
    return torch.cat(out, 2)


# The second one has learned the places of its grid and pools its text, which Wan does not.
CONFIGS = (DIT, replace(DIT, grid=(HEIGHT // DIT.patch, WIDTH // DIT.patch), pooled_text=True))


@pytest.mark.parametrize("config", CONFIGS)
@torch.no_grad()
def test_a_cached_rollout_equals_the_chunk_causal_forward(config: DiTConfig) -> None:
    dit, (x_t, _, sigma, text) = random_dit(config), inputs()
    whole = dit(x_t, sigma, text, chunk=CHUNK)
    assert (cached(dit, x_t, x_t, sigma, sigma, text, WHOLE) - whole).abs().max() < TOLERANCE


@torch.no_grad()
def test_places_and_pooled_text_matter() -> None:
    dit, (x_t, _, sigma, text) = random_dit(CONFIGS[1]), inputs()
    whole = dit(x_t, sigma, text, chunk=CHUNK)
    for name in ("position_embedding", "pooled_embedding.2.weight"):
        changed = random_dit(CONFIGS[1])
        changed.get_parameter(name).zero_()
        assert (changed(x_t, sigma, text, chunk=CHUNK) - whole).abs().max() > 1e-3


@torch.no_grad()
def test_latents_of_another_size_are_refused_where_places_are_learned() -> None:
    dit, (x_t, _, sigma, text) = random_dit(CONFIGS[1]), inputs()
    with pytest.raises(ShapeError, match=r"grid of \(2, 3\) tokens, the latents have \(2, 2\)"):
        dit(x_t[..., :4], sigma, text)


@pytest.mark.parametrize("config", CONFIGS)
@torch.no_grad()
def test_a_rollout_on_clean_memory_equals_teacher_forcing(config: DiTConfig) -> None:
    dit, (x_t, x0, sigma, text) = random_dit(config), inputs()
    whole = dit.forward_teacher_forced(x0, x_t, sigma, text, CHUNK)
    rolled = cached(dit, x_t, x0, sigma, torch.zeros_like(sigma), text, WHOLE)
    assert (rolled - whole).abs().max() < TOLERANCE


def reading(*, shaken: bool) -> DiT:
    """A network that reads a source."""
    dit = random_dit()
    dit.add_source()
    assert dit.source_embedding is not None
    if shaken:
        torch.nn.init.normal_(dit.source_embedding.weight, generator=torch.Generator().manual_seed(3))
    return dit


@torch.no_grad()
def test_a_rollout_that_follows_a_source_equals_teacher_forcing() -> None:
    dit, (x_t, x0, sigma, text) = reading(shaken=True), inputs()
    source = x_t.flip(2)
    whole = dit.forward_teacher_forced(x0, x_t, sigma, text, CHUNK, source)
    rolled = cached(dit, x_t, x0, sigma, torch.zeros_like(sigma), text, WHOLE, source)
    assert (rolled - whole).abs().max() < TOLERANCE
    blind = cached(dit, x_t, x0, sigma, torch.zeros_like(sigma), text, WHOLE)
    shifted = cached(dit, x_t, x0, sigma, torch.zeros_like(sigma), text, WHOLE, source.roll(1, 2))
    assert (blind - whole).abs().max() > 1e-3
    assert (shifted - whole).abs().max() > 1e-3


@torch.no_grad()
def test_a_source_says_nothing_before_it_is_learned() -> None:
    dit, (x_t, x0, sigma, text) = reading(shaken=False), inputs()
    known = random_dit().forward_teacher_forced(x0, x_t, sigma, text, CHUNK)
    assert torch.equal(dit.forward_teacher_forced(x0, x_t, sigma, text, CHUNK, x0), known)


@torch.no_grad()
def test_control_wrong_positions_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    dit, (x_t, _, sigma, text) = random_dit(), inputs()
    whole = dit(x_t, sigma, text, chunk=CHUNK)
    right = DiT.rotated_context

    def from_zero(self: DiT, cache: KVCache, shape: torch.Size) -> RotatedContext:
        past = right(self, cache, shape)
        rope = rope_for(torch.arange(CHUNK).float(), HEIGHT // 2, WIDTH // 2, DIT.head_dim)
        return RotatedContext(past.kv, rope, past.start, past.stop)

    monkeypatch.setattr(DiT, "rotated_context", from_zero)
    assert (cached(dit, x_t, x_t, sigma, sigma, text, WHOLE) - whole).abs().max() > 1e-3


@torch.no_grad()
def test_control_a_missing_key_is_seen() -> None:
    dit, (x_t, _, sigma, text) = random_dit(), inputs()
    whole = dit(x_t, sigma, text, chunk=CHUNK)
    short = StreamConfig(chunk=CHUNK, window=6)
    assert (cached(dit, x_t, x_t, sigma, sigma, text, short) - whole).abs().max() > 1e-3


@torch.no_grad()
def test_a_windowed_rollout_sees_only_the_window() -> None:
    """Positions are relative, so the last chunk of a windowed take is the last chunk of a short one.

    The remembered keys are those of chunks that themselves saw their own window, so the short take is
    rebuilt from the blocks that are kept.
    """
    dit, (x_t, _, sigma, text) = random_dit(), inputs()
    cache = KVCache()
    for idx in range(NUM_CHUNKS):
        own = slice(idx * CHUNK, (idx + 1) * CHUNK)
        words = dit.project_text(text[:, idx : idx + 1])
        past = dit.rotated_context(cache, x_t[:, :, own].shape)
        level = dit.modulation(sigma[:, own.start : own.start + 1])
        block = dit.clean_pass(x_t[:, :, own], level, words, past)
        cache = cache.append(block, STREAM)
        assert len(cache) <= STREAM.window - CHUNK
    assert [(b.start, b.stop) for b in cache.blocks] == [(6, 9), (9, 12)]
    past = dit.rotated_context(cache, x_t[:, :, :CHUNK].shape)
    alone = dit.rotated_context(KVCache(cache.blocks), x_t[:, :, :CHUNK].shape)
    assert past.start == FRAMES
    assert past.kv is not None
    assert alone.kv is not None
    assert torch.equal(past.kv[0], alone.kv[0])
    expected = rope_for(torch.arange(6, 9).float(), HEIGHT // 2, WIDTH // 2, DIT.head_dim)
    assert torch.equal(past.rope.turns, expected.turns)


@torch.no_grad()
def test_the_sink_is_never_evicted() -> None:
    dit, (x_t, _, sigma, text) = random_dit(), inputs()
    stream = StreamConfig(chunk=CHUNK, window=9, sink=3)
    cache = KVCache()
    for idx in range(NUM_CHUNKS):
        own = slice(idx * CHUNK, (idx + 1) * CHUNK)
        words = dit.project_text(text[:, idx : idx + 1])
        past = dit.rotated_context(cache, x_t[:, :, own].shape)
        level = dit.modulation(sigma[:, own.start : own.start + 1])
        cache = cache.append(dit.clean_pass(x_t[:, :, own], level, words, past), stream)
    assert [(b.start, b.stop) for b in cache.blocks] == [(0, 3), (9, 12)]


def test_a_frame_does_not_feel_the_future() -> None:
    dit, (x_t, _, sigma, text) = random_dit(), inputs()
    x_t.requires_grad_()
    dit(x_t, sigma, text, chunk=CHUNK)[:, :, :CHUNK].sum().backward()
    assert x_t.grad is not None
    assert x_t.grad[:, :, :CHUNK].abs().max() > 0
    assert torch.equal(x_t.grad[:, :, CHUNK:], torch.zeros_like(x_t.grad[:, :, CHUNK:]))


def test_control_the_bidirectional_network_feels_the_future() -> None:
    dit, (x_t, _, sigma, text) = random_dit(), inputs()
    x_t.requires_grad_()
    dit(x_t, sigma, text)[:, :, :CHUNK].sum().backward()
    assert x_t.grad is not None
    assert x_t.grad[:, :, CHUNK:].abs().max() > 1e-6


@torch.no_grad()
def test_a_batch_of_two_is_two_batches_of_one() -> None:
    dit, (x_t, _, sigma, text) = random_dit(), inputs(batch=2)
    both = dit(x_t, sigma, text, chunk=CHUNK)
    for i in range(2):
        one = slice(i, i + 1)
        assert (dit(x_t[one], sigma[one], text[one], chunk=CHUNK) - both[one]).abs().max() < TOLERANCE


@torch.no_grad()
def test_one_text_for_all_equals_the_same_text_for_each_chunk() -> None:
    dit, (x_t, _, sigma, text) = random_dit(), inputs()
    same = text[:, :1]
    each = same.expand(-1, NUM_CHUNKS, -1, -1)
    assert (dit(x_t, sigma, same) - dit(x_t, sigma, each)).abs().max() < TOLERANCE
    assert (dit(x_t, sigma, same) - dit(x_t, sigma, text)).abs().max() > 1e-3


def test_a_cache_is_a_value() -> None:
    dit, (x_t, _, sigma, text) = random_dit(), inputs()
    words, level = dit.project_text(text[:, :1]), dit.modulation(sigma[:, :1])
    first = dit.rotated_context(KVCache(), x_t[:, :, :CHUNK].shape)
    cache = KVCache().append(dit.clean_pass(x_t[:, :, :CHUNK], level, words, first), WHOLE)
    before = cache.blocks[0].k.clone()
    past = dit.rotated_context(cache, x_t[:, :, :CHUNK].shape)
    longer = cache.append(dit.clean_pass(x_t[:, :, 3:6], level, words, past), WHOLE)
    assert (cache.stop, longer.stop) == (CHUNK, 2 * CHUNK)
    assert longer.blocks[0] is cache.blocks[0]
    assert torch.equal(cache.blocks[0].k, before)

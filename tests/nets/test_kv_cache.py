"""The memory of a take: sink and window are kept, exactly, whatever the lengths; a cache is a value."""

from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longtake.core.configs import StreamConfig
from longtake.core.errors import ConfigError, ShapeError
from longtake.nets.kv_cache import Block, KVCache

TOKENS = 2  # of a latent frame


def block(start: int, stop: int) -> Block:
    """Keys that carry their latent frame's number, values its negative."""
    frames = torch.arange(start, stop).repeat_interleave(TOKENS).float()
    k = frames.view(1, 1, -1, 1, 1).expand(2, 1, -1, 1, 4).clone()
    return Block(k, -k, torch.arange(start, stop).view(1, 1, -1, 1, 1).float(), start, stop)


class Take(NamedTuple):
    stream: StreamConfig
    num_chunks: int


@st.composite
def takes(draw: st.DrawFn) -> Take:
    chunk = draw(st.integers(1, 5))
    sink = chunk * draw(st.integers(0, 4))
    window = sink + chunk * draw(st.integers(1, 6))
    return Take(StreamConfig(chunk=chunk, window=window, sink=sink), draw(st.integers(1, 14)))


def filled(take: Take) -> list[KVCache]:
    """The cache after each chunk."""
    caches, cache, chunk = [], KVCache(), take.stream.chunk
    for idx in range(take.num_chunks):
        cache = cache.append(block(idx * chunk, (idx + 1) * chunk), take.stream)
        caches.append(cache)
    return caches


@given(takes())
def test_exactly_the_sink_and_the_window_are_kept(take: Take) -> None:
    chunk, window, sink = take.stream.chunk, take.stream.window, take.stream.sink
    for num, cache in enumerate(filled(take), 1):
        made = num * chunk
        recent = window - sink - chunk  # the chunk to come needs its place in the window
        kept = [f for f in range(made) if f < sink or f >= made - recent]
        assert [f for b in cache.blocks for f in range(b.start, b.stop)] == kept
        assert len(cache) == len(kept) <= window - chunk


@given(takes())
def test_the_cache_knows_how_much_was_made_whatever_was_evicted(take: Take) -> None:
    for num, cache in enumerate(filled(take), 1):
        assert cache.stop == num * take.stream.chunk


@given(takes())
def test_what_is_read_is_what_was_kept_in_order_of_time(take: Take) -> None:
    cache = filled(take)[-1]
    kept = [f for b in cache.blocks for f in range(b.start, b.stop)]
    if not cache.blocks:
        assert not kept
        return
    k, v = torch.stack([cache.keys(layer) for layer in range(2)]), cache.values()
    assert k.shape == v.shape == (2, 1, TOKENS * len(kept), 1, 4)
    assert k[0, 0, ::TOKENS, 0, 0].tolist() == kept
    assert torch.equal(v, -k)


@given(takes(), st.integers(0, 13))
def test_going_back_is_keeping_the_cache_of_then(take: Take, num: int) -> None:
    """Appending again after a rewind gives the cache that the take had, evictions included."""
    caches = [KVCache(), *filled(take)]
    num = min(num, take.num_chunks)
    cache, chunk = caches[num], take.stream.chunk
    for idx in range(num, take.num_chunks):
        cache = cache.append(block(idx * chunk, (idx + 1) * chunk), take.stream)
    assert [(b.start, b.stop) for b in cache.blocks] == [(b.start, b.stop) for b in caches[-1].blocks]
    assert cache.stop == caches[-1].stop


@given(takes())
def test_blocks_are_shared_and_never_copied(take: Take) -> None:
    caches = filled(take)
    for before, after in pairwise(caches):
        known = {id(b) for b in before.blocks}
        assert sum(id(b) not in known for b in after.blocks) <= 1


@given(takes())
def test_two_branches_do_not_touch_their_past(take: Take) -> None:
    parent = filled(take)[-1]
    blocks, stop, chunk = parent.blocks, parent.stop, take.stream.chunk
    contents = [b.k.clone() for b in blocks]
    left = parent.append(block(stop, stop + chunk), take.stream)
    right = parent.append(block(stop, stop + chunk), take.stream)
    assert parent.blocks is blocks
    assert all(torch.equal(b.k, k) for b, k in zip(blocks, contents, strict=True))
    assert [(b.start, b.stop) for b in left.blocks] == [(b.start, b.stop) for b in right.blocks]


@given(takes(), st.integers(-30, 30).filter(bool))
def test_a_gap_or_an_overlap_is_refused(take: Take, off: int) -> None:
    cache = filled(take)[-1]
    start = cache.stop + off
    with pytest.raises(ShapeError, match=f"starts at latent frame {start}, the cache stops at {cache.stop}"):
        cache.append(block(start, start + take.stream.chunk), take.stream)


def test_an_empty_cache_remembers_nothing() -> None:
    cache = KVCache()
    assert (len(cache), cache.stop, cache.blocks) == (0, 0, ())


@given(chunk=st.integers(1, 5), window=st.integers(0, 30), sink=st.integers(0, 30))
def test_a_window_without_room_for_the_sink_and_a_chunk_is_refused(chunk: int, window: int, sink: int) -> None:
    if window % chunk or sink % chunk or window < chunk + sink:
        with pytest.raises(ConfigError):
            StreamConfig(chunk=chunk, window=window, sink=sink)

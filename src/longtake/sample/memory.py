"""Memory of a take, and its change at a change of prompt. All functions are pure: they return new caches.

append    add the clean pass of a finished chunk, under the text it was made with
rebuild   recompute the keys and values of all kept chunks under the text they have, from their latents alone
recache   recompute the keys and values of all kept chunks under another text (LongLive, Yang et al. 2025, 3.1)
flush     keep the sink and the last latent frame
cut       keep nothing
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from longtake.core.configs import StreamConfig
from longtake.core.shapes import Latent
from longtake.nets.blocks import Modulation, TextKV
from longtake.nets.dit import DiT
from longtake.nets.kv_cache import Block, KVCache, is_kept
from longtake.nets.light_codec import CodecState
from longtake.sample.plans import Wording


@dataclass(frozen=True, slots=True)
class CacheWriter:
    """Writer of K/V caches."""

    dit: DiT
    clean: Modulation  # modulation of the clean pass, at sigma = 0
    stream: StreamConfig

    def append(self, cache: KVCache, latent: Latent, text: TextKV) -> KVCache:
        """Cache after a clean pass over `latent`, which follows the cache; old blocks are evicted."""
        block = self.dit.clean_pass(latent, self.clean, text, self.dit.rotated_context(cache, latent.shape))
        return cache.append(block, self.stream)

    def prefill(self, latents: Sequence[Latent], text: TextKV, start: int) -> KVCache:
        """Cache after clean passes over given chunks, the first of which begins at latent frame `start` of the take."""
        cache = KVCache(stop=start)
        for latent in latents:
            cache = self.append(cache, latent, text)
        return cache

    def recache(self, cache: KVCache, newest: Latent, text: TextKV) -> KVCache:
        """Cache after `newest`, with every kept block recomputed from its latents under `text`."""
        stop = cache.stop + newest.shape[2]
        pieces = [*((block.start, block.latent) for block in cache.blocks), (cache.stop, newest)]
        return self.rebuild([piece for piece in pieces if is_kept(piece[0], stop, self.stream)], text, stop)

    def rebuild(self, pieces: Sequence[tuple[int, Tensor]], text: TextKV, stop: int) -> KVCache:
        """Cache of latents, each with its first latent frame in the take; the cache stops at latent frame `stop`."""
        rebuilt = KVCache()
        for start, latent in pieces:
            rebuilt = self.append(replace(rebuilt, stop=start), latent, text)
        return replace(rebuilt, stop=stop)

    def flush(self, cache: KVCache, newest: Latent, text: TextKV) -> KVCache:
        """Cache after `newest`, reduced to the sink's blocks and the last latent frame under `text`."""
        sink = tuple(block for block in cache.blocks if block.start < self.stream.sink)
        last = newest[:, :, -1:]
        return self.append(KVCache(sink, cache.stop + newest.shape[2] - 1), last, text)


@dataclass(frozen=True, slots=True)
class Memory:
    """State of a take after a chunk.

    The clean pass of the newest chunk is deferred until the next chunk is requested: this does not delay the chunk's
    frames, and a transition may make the pass unnecessary.
    """

    cache: KVCache = field(default_factory=KVCache)  # K/V cache without the newest chunk
    newest: Latent | None = None  # clean latents [1, c, chunk, h, w] of the newest chunk; None at the start
    wording: Wording = ()  # prompts that the newest chunk was made with
    decoder: CodecState = field(default_factory=CodecState)

    def layout(self, stream: StreamConfig) -> tuple[object, ...]:
        """Layout of the blocks relative to the newest chunk; memories of equal layout can be joined into a batch."""
        blocks = [(self.cache.stop - b.start, len(b), b.start < stream.sink) for b in self.cache.blocks]
        return tuple(blocks), self.newest is None, tuple(frame.shape for frame in self.decoder.frames)

    def tensors(self) -> dict[int, Tensor]:
        """All tensors of the memory by identity, since memories share most of them."""
        held = [t for block in self.cache.blocks for t in (block.k, block.v, block.latent)]
        held += self.decoder.frames
        if self.newest is not None:
            held.append(self.newest)
        return {id(tensor): tensor for tensor in held}

    def to(self, device: torch.device) -> "Memory":
        """Memory with all tensors on `device`; itself if they are there already."""
        if all(tensor.device == device for tensor in self.tensors().values()):
            return self
        return self.moved(lambda tensor: tensor.to(device))

    def moved(self, move: Callable[[Tensor], Tensor]) -> "Memory":
        """Memory with `move` applied to every tensor."""
        blocks = (replace(b, k=move(b.k), v=move(b.v), latent=move(b.latent)) for b in self.cache.blocks)
        return replace(
            self,
            cache=replace(self.cache, blocks=tuple(blocks)),
            newest=None if self.newest is None else move(self.newest),
            decoder=replace(self.decoder, frames=tuple(move(frame) for frame in self.decoder.frames)),
        )


# The functions below join takes of equal layout into a batch and split it again. A single take is never copied.


def joined_text(texts: Sequence[TextKV]) -> TextKV:
    """Join the cross-attention keys and values of several takes into a batch."""
    if len(texts) == 1:
        return texts[0]
    rows = max(text.k[0].shape[1] for text in texts)
    padding = min(text.padding for text in texts)  # padding of the longest text; the others repeat their last row

    def side_by_side(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([torch.cat((x, x[:, -1:].expand(-1, rows - x.shape[1], -1, -1)), 1) for x in tensors])

    layers = range(len(texts[0].k))
    k = tuple(side_by_side([text.k[layer] for text in texts]) for layer in layers)
    v = tuple(side_by_side([text.v[layer] for text in texts]) for layer in layers)
    added = [text.modulation for text in texts if text.modulation is not None]
    modulation = None
    if added:
        modulation = Modulation(torch.cat([m.blocks for m in added]), torch.cat([m.head for m in added]))
    return TextKV(k, v, texts[0].groups, modulation, padding)


def joined_cache(caches: Sequence[KVCache]) -> KVCache:
    """Join caches of equal layout into a batch. Positions are relative to the cache, so takes may differ in length."""
    if len(caches) == 1:
        return caches[0]
    blocks = []
    for alike in zip(*(cache.blocks for cache in caches), strict=True):
        k, v = torch.cat([b.k for b in alike], 1), torch.cat([b.v for b in alike], 1)
        blocks.append(replace(alike[0], k=k, v=v, latent=torch.cat([b.latent for b in alike])))
    return KVCache(tuple(blocks), caches[0].stop)


def split_cache(cache: KVCache, joined: KVCache, caches: Sequence[KVCache]) -> list[KVCache]:
    """Split the cache of a batch into those of the single takes.

    Args:
        cache: cache of the batch, derived from `joined` by a transition.
        joined: cache of the batch before the transition.
        caches: caches from which `joined` was joined; blocks that the transition kept are reused without a copy.
    """
    if len(caches) == 1:
        return [cache]
    unchanged = {id(block): i for i, block in enumerate(joined.blocks)}
    split = []
    for take, before in enumerate(caches):
        later = before.stop - joined.stop  # offset, since the batch has the latent frame numbers of its first take
        blocks = (
            before.blocks[unchanged[id(block)]] if id(block) in unchanged else _of_take(block, take, later)
            for block in cache.blocks
        )
        split.append(KVCache(tuple(blocks), cache.stop + later))
    return split


def _of_take(block: Block, take: int, later: int) -> Block:
    """Copy of one take's part of a block, with its latent frame numbers shifted by `later`."""
    own = slice(take, take + 1)
    k, v, latent = block.k[:, own].clone(), block.v[:, own].clone(), block.latent[own].clone()
    return Block(k, v, latent, block.start + later, block.stop + later)


def joined_state(states: Sequence[CodecState]) -> CodecState:
    """Join the codec states of several takes into a batch."""
    if len(states) == 1:
        return states[0]
    frames = zip(*(state.frames for state in states), strict=True)
    return CodecState(tuple(torch.cat(alike) for alike in frames), states[0].started)

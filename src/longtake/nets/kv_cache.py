"""K/V cache of a causal rollout: one immutable block of keys and values per chunk.

A cache is a tuple of blocks, so a snapshot is a reference, a rewind drops references, and branches share common
blocks. Keys are stored *before* the rotary embedding: a block's position is its place among the blocks still kept, so
positions stay in the range of training however long the take. Before the first eviction that is its absolute position.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.core.configs import StreamConfig
from longtake.core.errors import ShapeError
from longtake.core.shapes import Latent


@dataclass(frozen=True, slots=True)
class Block:
    """Keys and values of one clean chunk in all layers, and the chunk's latents. Immutable."""

    k: Float[Tensor, "layers b m n k"]  # keys, normed but not rotated
    v: Float[Tensor, "layers b m n k"]
    latent: Latent  # x0 of the chunk
    start: int  # first latent frame in the take
    stop: int  # latent frame after the last one

    def __len__(self) -> int:
        return self.stop - self.start


def is_kept(start: int, stop: int, stream: StreamConfig) -> bool:
    """Whether the block that begins at latent frame `start` is kept once `stop` latent frames have been made.

    The sink is kept, and as many recent blocks as leave room in the window for the next chunk.
    """
    return start < stream.sink or start >= stop + stream.chunk + stream.sink - stream.window


@dataclass(frozen=True, slots=True)
class KVCache:
    """Blocks in order of time; after evictions there is a gap between the sink and the recent ones."""

    blocks: tuple[Block, ...] = ()
    stop: int = 0  # latent frames of the take made so far, kept or evicted

    def __len__(self) -> int:
        """Number of latent frames kept, which is also the position of the next chunk."""
        return sum(len(block) for block in self.blocks)

    def append(self, block: Block, stream: StreamConfig) -> "KVCache":
        """Cache with `block` appended, and without the blocks that this evicts (see `is_kept`).

        Raises:
            ShapeError: the block does not begin where the cache stops.
        """
        if block.start != self.stop:
            raise ShapeError(f"the block starts at latent frame {block.start}, the cache stops at {self.stop}")
        kept = (b for b in (*self.blocks, block) if is_kept(b.start, block.stop, stream))
        return KVCache(tuple(kept), block.stop)

    def keys(self, layer: int) -> Float[Tensor, "b m n k"]:
        """Keys of one layer, concatenated over all blocks, of which there must be at least one."""
        return torch.cat([b.k[layer] for b in self.blocks], 1)

    def values(self) -> Float[Tensor, "layers b m n k"]:
        """Values of all layers, concatenated over all blocks, of which there must be at least one."""
        return self.blocks[0].v if len(self.blocks) == 1 else torch.cat([b.v for b in self.blocks], 2)

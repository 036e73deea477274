"""What a causal rollout remembers: keys and values, one immutable block per chunk.

A cache is a tuple of blocks, so a snapshot is a reference, a rewind drops references, and branches share
what they have in common. Keys are kept *before* rotation: a block's position is its place among the blocks
that are still kept, so positions never leave the range the network was trained on, however long the take.
While nothing has been evicted that place is the absolute one.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.core.configs import StreamConfig
from longtake.core.errors import ShapeError


@dataclass(frozen=True, slots=True)
class Block:
    """Keys and values that one clean chunk left behind, in all layers. Never written again."""

    k: Float[Tensor, "layers b m n k"]  # normed, not rotated
    v: Float[Tensor, "layers b m n k"]
    start: int
    stop: int  # latent frames of the take, half-open

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class KVCache:
    """Blocks in order of time, perhaps with a gap between the sink and the window."""

    blocks: tuple[Block, ...] = ()
    stop: int = 0  # latent frames of the take that have been made, kept or not

    def __len__(self) -> int:
        """Latent frames kept; also the position of the chunk to be made next."""
        return sum(len(block) for block in self.blocks)

    def append(self, block: Block, stream: StreamConfig) -> "KVCache":
        """The cache one chunk later: the sink, and as many recent blocks as leave room for the next chunk.

        Raises:
            ShapeError: the block does not begin where the cache stops.
        """
        if block.start != self.stop:
            raise ShapeError(f"the block starts at latent frame {block.start}, the cache stops at {self.stop}")
        oldest = block.stop + stream.chunk + stream.sink - stream.window
        kept = (b for b in (*self.blocks, block) if b.start < stream.sink or b.start >= oldest)
        return KVCache(tuple(kept), block.stop)

    def keys(self, layer: int) -> Float[Tensor, "b m n k"]:
        """Keys of one layer, all blocks side by side. There must be a block."""
        return torch.cat([b.k[layer] for b in self.blocks], 1)

    def values(self) -> Float[Tensor, "layers b m n k"]:
        """Values of all layers, all blocks side by side. There must be a block."""
        return self.blocks[0].v if len(self.blocks) == 1 else torch.cat([b.v for b in self.blocks], 2)

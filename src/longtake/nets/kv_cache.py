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
from longtake.core.shapes import Latent


@dataclass(frozen=True, slots=True)
class Block:
    """Keys and values of one clean chunk in all layers, and the latents they are of. Never written again."""

    k: Float[Tensor, "layers b m n k"]  # normed, not rotated
    v: Float[Tensor, "layers b m n k"]
    latent: Latent  # x0
    start: int
    stop: int  # latent frames of the take, half-open

    def __len__(self) -> int:
        return self.stop - self.start


def is_kept(start: int, stop: int, stream: StreamConfig) -> bool:
    """Whether the block that begins at latent frame `start` is kept once `stop` latent frames have been made.

    Kept are the sink, and as many recent blocks as leave room in the window for the next chunk.
    """
    return start < stream.sink or start >= stop + stream.chunk + stream.sink - stream.window


@dataclass(frozen=True, slots=True)
class KVCache:
    """Blocks in order of time, perhaps with a gap between the sink and the window."""

    blocks: tuple[Block, ...] = ()
    stop: int = 0  # latent frames of the take that have been made, kept or not

    def __len__(self) -> int:
        """Latent frames kept; also the position of the chunk to be made next."""
        return sum(len(block) for block in self.blocks)

    def append(self, block: Block, stream: StreamConfig) -> "KVCache":
        """The cache one chunk later, without the blocks that `is_kept` lets go.

        Raises:
            ShapeError: the block does not begin where the cache stops.
        """
        if block.start != self.stop:
            raise ShapeError(f"the block starts at latent frame {block.start}, the cache stops at {self.stop}")
        kept = (b for b in (*self.blocks, block) if is_kept(b.start, block.stop, stream))
        return KVCache(tuple(kept), block.stop)

    def keys(self, layer: int) -> Float[Tensor, "b m n k"]:
        """Keys of one layer, all blocks side by side. There must be a block."""
        return torch.cat([b.k[layer] for b in self.blocks], 1)

    def values(self) -> Float[Tensor, "layers b m n k"]:
        """Values of all layers, all blocks side by side. There must be a block."""
        return self.blocks[0].v if len(self.blocks) == 1 else torch.cat([b.v for b in self.blocks], 2)

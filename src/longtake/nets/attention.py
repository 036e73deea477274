"""Who may look at whom. The network is called with one of these; causality is never a copy of the network.

Queries, keys and values are [b, s, n, k], tokens ordered by time, already rotated. Masked attention is
computed chunk by chunk over the keys that the chunk may see: exact, on every device, with gradients, and
faster than a mask because the masked part of the square is never computed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Heads = Float[Tensor, "b s n k"]


# Self-attention of one layer: (layer, q, k, v) -> out.
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


def attention(
    q: Heads, k: Float[Tensor, "b m n k"], v: Float[Tensor, "b m n k"], bias: Float[Tensor, "1 1 1 m"] | None = None
) -> Heads:
    """softmax(q k^T / sqrt(k) + bias) v, no mask."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if q.device.type == "cpu" and torch.is_autocast_enabled("cpu"):  # torch's own products would be made in fp32
        scores = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)
        out = (scores if bias is None else scores + bias).softmax(-1) @ v
    else:
        out = functional.scaled_dot_product_attention(q, k, v, bias)
    return out.transpose(1, 2)


@dataclass(frozen=True, slots=True)
class Bidirectional:
    """Every token sees every token."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        del layer
        return attention(q, k, v)


@dataclass(frozen=True, slots=True)
class ChunkCausal:
    """A token sees its own chunk and the chunks before it."""

    tokens: int  # of a chunk

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        del layer
        out = []
        for stop in range(self.tokens, q.shape[1] + 1, self.tokens):
            own = slice(stop - self.tokens, stop)
            out.append(attention(q[:, own], k[:, :stop], v[:, :stop]))
        return torch.cat(out, 1)


@dataclass(frozen=True, slots=True)
class TeacherForcing:
    """The sequence is [clean | noisy]. Clean chunks are chunk-causal among themselves; a noisy chunk sees
    itself and the *clean* chunks before it: what a rollout with perfect memory would see."""

    tokens: int  # of a chunk

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        half = q.shape[1] // 2
        out = [ChunkCausal(self.tokens)(layer, q[:, :half], k[:, :half], v[:, :half])]
        for start in range(0, half, self.tokens):
            own = slice(half + start, half + start + self.tokens)
            keys = torch.cat((k[:, :start], k[:, own]), 1)
            values = torch.cat((v[:, :start], v[:, own]), 1)
            out.append(attention(q[:, own], keys, values))
        return torch.cat(out, 1)


class Cached:
    """New tokens see themselves and the past; what they leave behind is collected layer by layer."""

    def __init__(self, past: tuple[Tensor, Tensor] | None) -> None:
        """Args: past: keys (rotated) and values, [layers, b, m, n, k] each."""
        self.past = past

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.past is not None:
            past_k, past_v = self.past
            k = torch.cat((past_k[layer], k), 1)
            v = torch.cat((past_v[layer], v), 1)
        return attention(q, k, v)

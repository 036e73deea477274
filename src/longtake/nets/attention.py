"""Attention patterns of self-attention. The network is called with one, so all patterns share its weights.

Queries, keys and values are [b, s, n, k], tokens ordered by time; queries and keys are already rotated. Masked
attention is computed chunk by chunk over the visible keys only: exact, on every device, with gradients, and faster
than with a mask, because masked scores are never computed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Heads = Float[Tensor, "b s n k"]


# An attention pattern, applied in one layer: (layer, q, k, v) -> out.
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


def attention(
    q: Heads, k: Float[Tensor, "b m n k"], v: Float[Tensor, "b m n k"], bias: Float[Tensor, "1 1 1 m"] | None = None
) -> Heads:
    """Unmasked attention softmax(q k^T / sqrt(k) + bias) v."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if q.device.type == "cpu" and torch.is_autocast_enabled("cpu"):  # torch's own kernel would multiply in fp32
        scores = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)
        out = (scores if bias is None else scores + bias).softmax(-1) @ v
    else:
        out = functional.scaled_dot_product_attention(q, k, v, bias)
    return out.transpose(1, 2)


@dataclass(frozen=True, slots=True)
class Bidirectional:
    """Bidirectional attention: every token attends to every token."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        del layer
        return attention(q, k, v)


@dataclass(frozen=True, slots=True)
class ChunkCausal:
    """Chunk-causal attention: a token attends to its own chunk and the chunks before it."""

    tokens: int  # tokens per chunk

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        del layer
        out = []
        for stop in range(self.tokens, q.shape[1] + 1, self.tokens):
            own = slice(stop - self.tokens, stop)
            out.append(attention(q[:, own], k[:, :stop], v[:, :stop]))
        return torch.cat(out, 1)


@dataclass(frozen=True, slots=True)
class TeacherForcing:
    """Teacher-forced attention over the sequence [clean | noisy].

    Clean chunks are chunk-causal among themselves. A noisy chunk attends to itself and the *clean* chunks before it, as
    in a rollout without eviction.
    """

    tokens: int  # tokens per chunk

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
    """Attention of new tokens to each other and to cached keys and values."""

    def __init__(self, past: tuple[Tensor, Tensor] | None) -> None:
        """Hold `past`: rotated keys and values, [layers, b, m, n, k] each; None for an empty cache."""
        self.past = past

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.past is not None:
            past_k, past_v = self.past
            k = torch.cat((past_k[layer], k), 1)
            v = torch.cat((past_v[layer], v), 1)
        return attention(q, k, v)

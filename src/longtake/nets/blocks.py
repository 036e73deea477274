"""Parts of the diffusion transformer: norms, attention with its projections, the block, the output head."""

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from longtake.core.configs import DiTConfig
from longtake.core.shapes import Tokens
from longtake.nets.attention import Attend, attention
from longtake.nets.rope import Rope


@dataclass(frozen=True, slots=True)
class Modulation:
    """Adaptive layer norm modulation of noise levels, computed once per sampling schedule."""

    blocks: Float[Tensor, "#b f 6 d"]  # shift, scale and gate of self-attention, then of the feed-forward
    head: Float[Tensor, "#b f d"]


@dataclass(frozen=True, slots=True)
class TextKV:
    """Cross-attention keys and values of a prompt in all layers, computed once per prompt."""

    k: tuple[Float[Tensor, "bg t n k"], ...]
    v: tuple[Float[Tensor, "bg t n k"], ...]
    groups: int  # consecutive texts per clip
    modulation: Modulation | None = None  # term that each group adds to the modulation; None: no pooled text
    padding: int = 1  # number of equal padding rows that the last row represents

    @property
    def bias(self) -> Float[Tensor, "1 1 1 t"] | None:
        """Bias on the attention scores: log n for the last row, which represents n equal ones; None if n = 1."""
        if self.padding == 1:
            return None
        bias = self.k[0].new_zeros(1, 1, 1, self.k[0].shape[1])
        bias[..., -1] = math.log(self.padding)
        return bias


def with_text(modulation: Modulation, text: TextKV) -> Modulation:
    """Add each text group's pooled-text term to the modulation of its latent frames."""
    if text.modulation is None:
        return modulation
    frames = max(modulation.blocks.shape[1], text.groups)
    blocks, head = text.modulation.blocks, text.modulation.head
    repeats = frames // text.groups
    return Modulation(
        modulation.blocks + blocks.repeat_interleave(repeats, 1), modulation.head + head.repeat_interleave(repeats, 1)
    )


class RMSNorm(nn.Module):
    """Root-mean-square norm x / rms(x) * weight, over all heads at once."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # The norm is computed in fp32 or wider: a mean of 1536 squares in bf16 loses 3 digits.
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return functional.rms_norm(wide, (x.shape[-1],), eps=self.eps).to(x.dtype) * self.weight


class Attention(nn.Module):
    """Projections q, k, v and o with the norms of q and k, as self- and cross-attention both have them."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        dim = config.dim
        self.num_heads = config.num_heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q = RMSNorm(dim, config.eps)
        self.norm_k = RMSNorm(dim, config.eps)

    def queries(self, x: Tokens) -> Tensor:
        return self._heads(self.norm_q(self.q(x)))

    def keys_values(self, x: Tokens) -> tuple[Tensor, Tensor]:
        return self._heads(self.norm_k(self.k(x))), self._heads(self.v(x))

    def merge(self, out: Float[Tensor, "b s n k"]) -> Tokens:
        return self.o(out.flatten(2))

    def _heads(self, x: Tokens) -> Float[Tensor, "b s n k"]:
        return x.unflatten(-1, (self.num_heads, -1))


class TransformerBlock(nn.Module):
    """Transformer block: self-attention, cross-attention, feed-forward."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        dim = config.dim
        self.eps = config.eps
        self.modulation = nn.Parameter(torch.empty(1, 6, dim))
        self.self_attn = Attention(config)
        self.norm3 = nn.LayerNorm(dim, eps=config.eps)
        self.cross_attn = Attention(config)
        self.ffn = nn.Sequential(nn.Linear(dim, config.ffn_dim), nn.GELU("tanh"), nn.Linear(config.ffn_dim, dim))

    def forward(
        self,
        x: Tokens,
        modulation: Float[Tensor, "#b f 6 d"],
        rope: Rope,
        text: tuple[Tensor, Tensor, Tensor | None],
        layer: int,
        attend: Attend,
    ) -> tuple[Tokens, Tensor, Tensor]:
        """Apply the block; returns the tokens and their self-attention keys (not rotated) and values."""
        m = self._levels(modulation)
        h = self._modulated(x, m[0], m[1])
        k, v = self.self_attn.keys_values(h)
        out = attend(layer, rope(self.self_attn.queries(h)), rope(k), v)
        x = x + self._per_frame(self.self_attn.merge(out), m[2])

        x = x + self._read_text(self.norm3(x), *text)

        h = self.ffn(self._modulated(x, m[3], m[4]))
        return x + self._per_frame(h, m[5]), k, v

    def read(self, states: Tokens) -> tuple[Tensor, Tensor]:
        """Cross-attention keys and values of text states."""
        return self.cross_attn.keys_values(states)

    def memory(self, x: Tokens, modulation: Float[Tensor, "#b f 6 d"]) -> tuple[Tensor, Tensor]:
        """Self-attention keys (not rotated) and values of tokens, without the rest of the block."""
        m = self._levels(modulation)
        return self.self_attn.keys_values(self._modulated(x, m[0], m[1]))

    def _levels(self, modulation: Float[Tensor, "#b f 6 d"]) -> tuple[Tensor, ...]:
        return (self.modulation + modulation).unsqueeze(3).unbind(2)  # six of [b, f, 1, d]

    def _modulated(self, x: Tokens, shift: Tensor, scale: Tensor) -> Tokens:
        h = functional.layer_norm(x, (x.shape[-1],), eps=self.eps)
        return (h.unflatten(1, (shift.shape[1], -1)) * (1 + scale) + shift).flatten(1, 2)

    def _per_frame(self, h: Tokens, gate: Tensor) -> Tokens:
        return (h.unflatten(1, (gate.shape[1], -1)) * gate).flatten(1, 2)

    def _read_text(self, h: Tokens, k: Tensor, v: Tensor, bias: Tensor | None) -> Tokens:
        groups = k.shape[0] // h.shape[0]
        q = self.cross_attn.queries(rearrange(h, "b (g s) d -> (b g) s d", g=groups))
        out = self.cross_attn.merge(attention(q, k, v, bias))
        return rearrange(out, "(b g) s d -> b (g s) d", g=groups)


class OutputHead(nn.Module):
    """Final norm, modulation and projection to patches."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.modulation = nn.Parameter(torch.empty(1, 2, config.dim))
        self.head = nn.Linear(config.dim, config.in_dim * config.patch**2)

    def forward(self, x: Tokens, time: Float[Tensor, "#b f d"]) -> Float[Tensor, "b s p"]:
        shift, scale = (self.modulation + time.unsqueeze(2)).unsqueeze(3).unbind(2)
        h = functional.layer_norm(x, (x.shape[-1],), eps=self.eps)
        h = h.unflatten(1, (shift.shape[1], -1)) * (1 + scale) + shift
        return self.head(h.flatten(1, 2))

"""The diffusion transformer: Wan2.1's network, one module for teacher, student and critic.

It predicts the velocity of every latent frame, each at its own noise level. Causality is not part of it: the
same weights run bidirectionally, chunk-causally for training, or on cached memory, by the `attend` they are
called with. Parameter names are the original Wan names, one to one.

    x = x + gate * self_attn(norm(x) * (1 + scale) + shift)      shift, scale, gate = modulation(sigma)
    x = x + cross_attn(norm3(x), text)
    x = x + gate * ffn(norm(x) * (1 + scale) + shift)

A network may have learned to follow a source video (`add_source`): its latents, embedded, are added to the tokens.
Two things that Wan does not have are off by default: a learned vector for each place of the grid, added to its tokens
(`DiTConfig.grid`), and the mean of the prompt's states, added to the modulation (`DiTConfig.pooled_text`).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from longtake.core.configs import DiTConfig
from longtake.core.errors import ShapeError
from longtake.core.shapes import Latent, Sigma, TextStates, Tokens
from longtake.flow.schedule import NUM_TIMESTEPS
from longtake.nets.attention import (
    Attend,
    Bidirectional,
    Cached,
    ChunkCausal,
    TeacherForcing,
    attention,
)
from longtake.nets.kv_cache import Block, KVCache
from longtake.nets.rope import Rope, rope_for

TEXT_ROWS = 16  # kept rows of a text are a multiple of these, so that compiled programs meet few shapes

# What a network says of noisy latents: (x_t, sigma, text) -> velocity.
Velocity = Callable[[Latent, Sigma, TextStates], Latent]


@dataclass(frozen=True, slots=True)
class Modulation:
    """What a noise level does to the network; a table of these is computed once per sampling schedule."""

    blocks: Float[Tensor, "#b f 6 d"]
    head: Float[Tensor, "#b f d"]


@dataclass(frozen=True, slots=True)
class TextKV:
    """Cross-attention keys and values of a prompt, all layers; computed once per prompt."""

    k: tuple[Float[Tensor, "bg t n k"], ...]
    v: tuple[Float[Tensor, "bg t n k"], ...]
    groups: int  # texts a clip, one after the other
    modulation: Modulation | None = None  # of each group, to be added; None: the network pools no text
    padding: int = 1  # equal rows that the last one stands for

    @property
    def bias(self) -> Float[Tensor, "1 1 1 t"] | None:
        """What is added to the scores of the rows: log n for a row that stands for n equal ones."""
        if self.padding == 1:
            return None
        bias = self.k[0].new_zeros(1, 1, 1, self.k[0].shape[1])
        bias[..., -1] = math.log(self.padding)
        return bias


@dataclass(frozen=True, slots=True)
class RotatedContext:
    """The memory of a chunk to be made: rotated once, read by each of its denoising steps."""

    kv: tuple[Tensor, Tensor] | None
    rope: Rope  # of the chunk's own tokens
    start: int
    stop: int


class RMSNorm(nn.Module):
    """x / rms(x) * weight, over all heads at once."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # At least fp32: the mean of squares of 1536 bf16 values loses 3 digits.
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return functional.rms_norm(wide, (x.shape[-1],), eps=self.eps).to(x.dtype) * self.weight


class Attention(nn.Module):
    """The projections that self- and cross-attention share: q, k, v, o and the two norms."""

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
    """Self-attention, cross-attention, feed-forward."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        dim = config.dim
        self.eps = config.eps
        self.modulation = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)
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
        """The tokens one layer on, and the self-attention keys (not rotated) and values they leave."""
        m = self._levels(modulation)
        h = self._modulated(x, m[0], m[1])
        k, v = self.self_attn.keys_values(h)
        out = attend(layer, rope(self.self_attn.queries(h)), rope(k), v)
        x = x + self._per_frame(self.self_attn.merge(out), m[2])

        x = x + self._read_text(self.norm3(x), *text)

        h = self.ffn(self._modulated(x, m[3], m[4]))
        return x + self._per_frame(h, m[5]), k, v

    def read(self, states: Tokens) -> tuple[Tensor, Tensor]:
        """What text leaves in this layer: cross-attention keys and values."""
        return self.cross_attn.keys_values(states)

    def memory(self, x: Tokens, modulation: Float[Tensor, "#b f 6 d"]) -> tuple[Tensor, Tensor]:
        """What these tokens leave in this layer, without going through it."""
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
    """Last norm, modulation and projection to patches."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.modulation = nn.Parameter(torch.randn(1, 2, config.dim) / config.dim**0.5)
        self.head = nn.Linear(config.dim, config.in_dim * config.patch**2)

    def forward(self, x: Tokens, time: Float[Tensor, "#b f d"]) -> Float[Tensor, "b s p"]:
        shift, scale = (self.modulation + time.unsqueeze(2)).unsqueeze(3).unbind(2)
        h = functional.layer_norm(x, (x.shape[-1],), eps=self.eps)
        h = h.unflatten(1, (shift.shape[1], -1)) * (1 + scale) + shift
        return self.head(h.flatten(1, 2))


class DiT(nn.Module):
    """Noisy latents, noise levels and text in; velocity out."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpoint_activations = False  # in training: compute each block again in the backward pass
        self.depth = config.num_layers  # blocks that take part; fewer only in training
        self._compiled_forward: Callable[..., Latent] | None = None  # of a pass over a chunk
        dim, patch = config.dim, config.patch
        self.patch_embedding = nn.Conv3d(config.in_dim, dim, (1, patch, patch), (1, patch, patch))
        self.source_embedding: nn.Conv3d | None = None
        self.position_embedding: nn.Parameter | None = None
        if config.grid is not None:
            self.position_embedding = nn.Parameter(torch.zeros(config.grid[0] * config.grid[1], dim))
        self.pooled_embedding: nn.Sequential | None = None
        if config.pooled_text:
            self.pooled_embedding = nn.Sequential(nn.Linear(config.text_dim, dim), nn.SiLU(), nn.Linear(dim, 7 * dim))
        self.text_embedding = nn.Sequential(nn.Linear(config.text_dim, dim), nn.GELU("tanh"), nn.Linear(dim, dim))
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.num_layers))
        self.head = OutputHead(config)
        self.init_weights()

    def init_weights(self) -> None:
        """Wan's start: Xavier linears, small embeddings, a head that says zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.patch_embedding.weight.flatten(1))
        for embedding in (self.text_embedding, self.time_embedding):
            for module in embedding:
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(self.head.head.weight)
        if self.pooled_embedding is not None:
            nn.init.zeros_(cast("nn.Linear", self.pooled_embedding[-1]).weight)

    def start_shallow(self, depth: int) -> None:
        """Let `depth` of the blocks take part. The others are made to change nothing, for when they come in later.

        Training few layers first costs less for each step and loses nothing: a block whose last projections are zero
        adds zero to its tokens (Gong et al. 2019, "Efficient training of BERT by progressively stacking").
        """
        self.depth = depth
        taking_part = {id(block) for block in self._layers()}
        for block in cast("Iterable[TransformerBlock]", self.blocks):
            if id(block) not in taking_part:
                for last in (block.self_attn.o, block.cross_attn.o, cast("nn.Linear", block.ffn[-1])):
                    nn.init.zeros_(last.weight)
                    nn.init.zeros_(last.bias)

    def add_source(self) -> None:
        """Let it read the latents of a source video; at the start they say nothing to it."""
        size = (1, self.config.patch, self.config.patch)
        embedding = nn.Conv3d(self.config.in_dim, self.config.dim, size, size)
        for p in embedding.parameters():
            nn.init.zeros_(p)
        self.source_embedding = embedding.to(self.device, self.dtype)

    @property
    def reads_source(self) -> bool:
        """Does it follow a source video?"""
        return self.source_embedding is not None

    # What can be computed before the tokens are known.

    @property
    def device(self) -> torch.device:
        return self.patch_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and of all that is computed with them."""
        return self.patch_embedding.weight.dtype

    @property
    def latent_dtype(self) -> torch.dtype:
        """Of the latents between calls: at least fp32, for the steps of a sampler add up what is rounded off."""
        return torch.promote_types(self.dtype, torch.float32)

    def modulation(self, sigma: Sigma) -> Modulation:
        """Modulation of noise levels [b, f]; f = 1 stands for all latent frames."""
        half = self.config.freq_dim // 2
        # fp64: at timestep 1000 an fp32 angle is off by 3e-5.
        exponents = torch.arange(half, dtype=torch.float64, device=sigma.device) / half
        angles = (NUM_TIMESTEPS * sigma.double())[..., None] * 10_000.0**-exponents
        waves = torch.cat((angles.cos(), angles.sin()), -1)
        time = self.time_embedding(waves.to(self.dtype))
        return Modulation(self.time_projection(time).unflatten(-1, (6, -1)), time)

    def project_text(self, text: TextStates, *, merge_padding: bool = False) -> TextKV:
        """Cross-attention memory of text states [b, g, t, e].

        Args:
            text: states; the rows after a prompt are zero.
            merge_padding: let one row stand for most of the zero rows, which have equal keys and values:
                n exp(s) = exp(s + log n). The same result to rounding, for less work at inference.
        """
        rows = text.shape[2]
        if merge_padding:
            used = int((text != 0).any(-1).any(0).any(0).sum())
            text = text[:, :, : min(rows, TEXT_ROWS * math.ceil((used + 1) / TEXT_ROWS))]
        states = self.text_embedding(rearrange(text.to(self.dtype), "b g t e -> (b g) t e"))
        pairs = [block.read(states) for block in self._layers()]
        k, v = (tuple(each) for each in zip(*pairs, strict=True))
        return TextKV(k, v, text.shape[1], self._pooled(text), rows - text.shape[2] + 1)

    def _pooled(self, text: TextStates) -> Modulation | None:
        """What the mean of a prompt's states adds to the modulation of the latent frames that read it."""
        if self.pooled_embedding is None:
            return None
        used = (text != 0).any(-1, keepdim=True)  # rows after a prompt are zero
        mean = text.sum(2) / used.sum(2).clamp_min(1)
        added = self.pooled_embedding(mean.to(self.dtype)).unflatten(-1, (7, -1))
        return Modulation(added[:, :, :6], added[:, :, 6])

    # Three ways to be called.

    def forward(self, x_t: Latent, sigma: Sigma, text: TextStates, chunk: int | None = None) -> Latent:
        """Velocity of a whole clip: bidirectional, or chunk-causal when `chunk` is given.

        Args:
            x_t: noisy latents [b, c, f, h, w].
            sigma: noise level of each latent frame [b, f].
            text: states [b, g, t, e]; g divides f, each group of latent frames reads its own text.
            chunk: latent frames that see each other; None: all do.
        """
        self._check_chunks(x_t, chunk or 1)
        rope = self._rope(torch.arange(x_t.shape[2], device=x_t.device), x_t)
        attend = Bidirectional() if chunk is None else ChunkCausal(chunk * self._tokens(x_t))
        return self._run(x_t, self.modulation(sigma), self.project_text(text), rope, attend)

    def forward_sparse(
        self, x_t: Latent, sigma: Sigma, text: TextStates, kept: Int[Tensor, "b f s"]
    ) -> Float[Tensor, "b f s p"]:
        """Velocity of some tokens of each latent frame, bidirectional, as if there were no others.

        For training at less cost (Zheng et al. 2024, "Fast training of diffusion models with masked transformers").

        Args:
            x_t: noisy latents [b, c, f, h, w].
            sigma: noise level of each latent frame [b, f].
            text: states [b, g, t, e].
            kept: numbers of the tokens of each latent frame.

        Returns:
            Patches, as `patches` cuts them.
        """
        rope = self._rope(torch.arange(x_t.shape[2], device=x_t.device), x_t)
        every = self._tokens(x_t) * torch.arange(x_t.shape[2], device=x_t.device)[:, None]
        rows = (kept + every).flatten(1)
        tokens = self._embedded(x_t)
        tokens = tokens.gather(1, rows[..., None].expand(-1, -1, tokens.shape[2]))
        own = Rope(rope.turns[rows])
        patches = self._through_blocks(tokens, self.modulation(sigma), self.project_text(text), own, Bidirectional())
        return patches.unflatten(1, kept.shape[1:])

    def patches(self, latent: Latent) -> Float[Tensor, "b f s p"]:
        """Latents cut into what each token holds, token by token."""
        p = self.config.patch
        return rearrange(latent, "b c f (h p) (w q) -> b f (h w) (p q c)", p=p, q=p)

    def forward_teacher_forced(
        self, x0: Latent, x_t: Latent, sigma: Sigma, text: TextStates, chunk: int, source: Latent | None = None
    ) -> Latent:
        """Velocity of each noisy chunk given the clean chunks before it, all chunks at once.

        Equal to a rollout whose every chunk came out as `x0`. The noisy chunks follow `source`, where one is given.
        """
        self._check_chunks(x_t, chunk)
        frames = torch.arange(x_t.shape[2], device=x_t.device)
        rope = self._rope(torch.cat((frames, frames)), x_t)
        sigma = torch.cat((torch.zeros_like(sigma), sigma), 1)
        memory = self.project_text(torch.cat((text, text), 1))
        attend = TeacherForcing(chunk * self._tokens(x_t))
        both = torch.cat((x0, x_t), 2)
        return self._run(both, self.modulation(sigma), memory, rope, attend, source)[:, :, len(frames) :]

    def forward_cached(
        self, x_t: Latent, modulation: Modulation, text: TextKV, past: RotatedContext, source: Latent | None = None
    ) -> Latent:
        """Velocity of one chunk, given what came before and, for a network that reads one, the source it follows."""
        return (self._compiled_forward or self._run)(x_t, modulation, text, past.rope, Cached(past.kv), source)

    def compile_passes(self) -> None:
        """Make a pass over a chunk one compiled program for each shape; on CUDA it is recorded once and replayed.

        The memory before a chunk grows until the window is full, so the first chunks of a process each cost a
        compilation. A replay writes to the same place each time: what it gives is copied.
        """
        mode = "reduce-overhead" if self.device.type == "cuda" else None
        program = torch.compile(self._run, dynamic=False, mode=mode)
        self._compiled_forward = lambda *given: program(*given).clone()

    def clean_pass(self, x0: Latent, clean: Modulation, text: TextKV, past: RotatedContext) -> Block:
        """The keys and values that a finished chunk leaves: one pass at sigma = 0.

        The last layer is not gone through: its memory is made of what comes in.
        """
        self._check_text(x0, text)
        *earlier, last = self._layers()
        tokens, attend, kept = self._embedded(x0), Cached(past.kv), []
        modulation, bias = with_text(clean, text), text.bias
        for layer, block in enumerate(earlier):
            words = text.k[layer], text.v[layer], bias
            tokens, *kv = block(tokens, modulation.blocks, past.rope, words, layer, attend)
            kept.append(kv)
        kept.append(last.memory(tokens, modulation.blocks))
        k, v = (torch.stack(tensors) for tensors in zip(*kept, strict=True))
        return Block(k, v, x0, past.start, past.stop)

    def rotated_context(self, cache: KVCache, x_shape: Sequence[int]) -> RotatedContext:
        """Rotate what is remembered, for a chunk of shape [b, c, f, h, w] that follows it."""
        frames, (height, width) = x_shape[2], self._grid(x_shape)
        device = self.device
        positions = torch.arange(len(cache) + frames, device=device)
        kv = None
        if cache.blocks:
            rope = rope_for(positions[:-frames].float(), height, width, self.config.head_dim)
            values = cache.values()
            keys = torch.empty_like(values)
            for layer in range(len(keys)):  # one by one: for Wan, a copy of all is gigabytes
                keys[layer] = rope(cache.keys(layer))
            kv = keys, values
        own = rope_for(positions[-frames:].float(), height, width, self.config.head_dim)
        return RotatedContext(kv, own, cache.stop, cache.stop + frames)

    # The network itself.

    def _layers(self) -> Sequence[TransformerBlock]:
        """The blocks that take part: all, or `depth` of them at even distances, the first among them."""
        blocks = cast("Sequence[TransformerBlock]", self.blocks)
        return [blocks[i * len(blocks) // self.depth] for i in range(self.depth)]

    def _run(
        self,
        x: Latent,
        modulation: Modulation,
        text: TextKV,
        rope: Rope,
        attend: Attend,
        source: Float[Tensor, "b c _ h w"] | None = None,
    ) -> Latent:
        self._check_text(x, text)
        height, width = self._grid(x.shape)
        tokens = self._embedded(x)
        if source is not None:  # it is of the last latent frames; those before are clean
            assert self.source_embedding is not None, "this network reads no source"
            followed = self._patchify(source, self.source_embedding)
            tokens = tokens + functional.pad(followed, (0, 0, tokens.shape[1] - followed.shape[1], 0))
        patches = self._through_blocks(tokens, modulation, text, rope, attend)
        p = self.config.patch
        return rearrange(patches, "b (f h w) (p q c) -> b c f (h p) (w q)", h=height, w=width, p=p, q=p).to(x.dtype)

    def _through_blocks(
        self, tokens: Tokens, modulation: Modulation, text: TextKV, rope: Rope, attend: Attend
    ) -> Float[Tensor, "b s p"]:
        """The patches of velocity that the blocks and the head make of embedded tokens."""
        modulation = with_text(modulation, text)
        bias = text.bias
        for layer, block in enumerate(self._layers()):
            words = text.k[layer], text.v[layer], bias
            given = tokens, modulation.blocks, rope, words, layer, attend
            again = self.checkpoint_activations and torch.is_grad_enabled()
            tokens, _, _ = checkpoint(block, *given, use_reentrant=False) if again else block(*given)
        return self.head(tokens, modulation.head)

    def _embedded(self, x: Latent) -> Tokens:
        """The tokens of latents, each with the vector of its place on the grid."""
        tokens = self._patchify(x, self.patch_embedding)
        if self.position_embedding is None:
            return tokens
        return tokens + self.position_embedding.repeat(x.shape[2], 1)

    def _patchify(self, x: Latent, embedding: nn.Conv3d) -> Tokens:
        p = self.config.patch
        patches = rearrange(x.to(self.dtype), "b c f (h p) (w q) -> b (f h w) (c p q)", p=p, q=p)
        return functional.linear(patches, embedding.weight.flatten(1), embedding.bias)

    def _rope(self, positions: Tensor, x: Latent) -> Rope:
        height, width = self._grid(x.shape)
        return rope_for(positions.float(), height, width, self.config.head_dim)

    def _grid(self, shape: Sequence[int]) -> tuple[int, int]:
        if shape[1] != self.config.in_dim or shape[3] % self.config.patch or shape[4] % self.config.patch:
            raise ShapeError(
                f"latents must be [b, {self.config.in_dim}, f, h, w] with h and w divisible by "
                f"{self.config.patch}, got {list(shape)}; were they made by another codec?"
            )
        tokens = shape[3] // self.config.patch, shape[4] // self.config.patch
        if self.config.grid not in (None, tokens):
            raise ShapeError(
                f"this network has learned a grid of {self.config.grid} tokens, the latents have {tokens}; "
                "ask for pictures of the size it was trained on"
            )
        return tokens

    def _tokens(self, x: Latent) -> int:
        height, width = self._grid(x.shape)
        return height * width

    def _check_chunks(self, x: Latent, chunk: int) -> None:
        if x.shape[2] % chunk:
            raise ShapeError(f"{x.shape[2]} latent frames are not a whole number of chunks of {chunk}")

    def _check_text(self, x: Latent, text: TextKV) -> None:
        if text.k[0].shape[0] != len(x) * text.groups or x.shape[2] % text.groups:
            raise ShapeError(
                f"{x.shape[2]} latent frames of {len(x)} clips need {len(x)} x g texts with g a divisor of "
                f"{x.shape[2]}, got {text.k[0].shape[0] // text.groups} x {text.groups}"
            )


def with_text(modulation: Modulation, text: TextKV) -> Modulation:
    """The modulation of noise levels, with what each group's text adds to that of its latent frames."""
    if text.modulation is None:
        return modulation
    frames = max(modulation.blocks.shape[1], text.groups)
    blocks, head = text.modulation.blocks, text.modulation.head
    repeats = frames // text.groups
    return Modulation(
        modulation.blocks + blocks.repeat_interleave(repeats, 1), modulation.head + head.repeat_interleave(repeats, 1)
    )

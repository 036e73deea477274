"""The diffusion transformer: Wan2.1's network, one module for teacher, student and critic.

It predicts the velocity of every latent frame, each at its own noise level. The same weights run bidirectionally,
chunk-causally for training, or on a K/V cache, depending on the attention pattern (`attend`) they are called with.
Parameter names are the original Wan names, one to one.

    x = x + gate * self_attn(norm(x) * (1 + scale) + shift)      shift, scale, gate = modulation(sigma)
    x = x + cross_attn(norm3(x), text)
    x = x + gate * ffn(norm(x) * (1 + scale) + shift)

A network may be trained to follow a source video (`add_source`), whose embedded latents are added to the tokens. Two
extensions to Wan are off by default: a learned position embedding added to the tokens (`DiTConfig.grid`), and an
embedding of the mean of the prompt's states added to the modulation (`DiTConfig.pooled_text`).
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
)
from longtake.nets.blocks import Modulation, OutputHead, TextKV, TransformerBlock, with_text
from longtake.nets.kv_cache import Block, KVCache
from longtake.nets.rope import Rope, rope_for

TEXT_ROWS = 16  # granularity of the text length after merging padding, so that few shapes need compiling

# Velocity of a network at noisy latents: (x_t, sigma, text) -> v.
Velocity = Callable[[Latent, Sigma, TextStates], Latent]


@dataclass(frozen=True, slots=True)
class RotatedContext:
    """Context of a new chunk: cached keys, rotated once for all its denoising steps, and values."""

    kv: tuple[Tensor, Tensor] | None  # rotated keys and values, [layers, b, m, n, k] each; None: empty cache
    rope: Rope  # rotary embedding of the chunk's own tokens
    start: int  # first latent frame of the chunk in the take
    stop: int  # latent frame after the chunk


class DiT(nn.Module):
    """Diffusion transformer from noisy latents, noise levels and text to velocity."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpoint_activations = False  # whether training recomputes each block in the backward pass
        self.depth = config.num_layers  # number of active blocks; below `num_layers` only in training
        self._compiled_forward: Callable[..., Latent] | None = None  # compiled version of a forward pass over a chunk
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
        if not self.head.modulation.is_meta:  # weights that will be loaded are not initialised first
            self.init_weights()

    def init_weights(self) -> None:
        """Initialise as Wan does: Xavier for linear layers, normal for embeddings, zero for the head."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.patch_embedding.weight.flatten(1))
        for embedding in (self.text_embedding, self.time_embedding):
            for module in embedding:
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, std=0.02)
        for part in (*cast("Iterable[TransformerBlock]", self.blocks), self.head):
            nn.init.normal_(part.modulation, std=self.config.dim**-0.5)
        nn.init.zeros_(self.head.head.weight)
        if self.pooled_embedding is not None:
            nn.init.zeros_(cast("nn.Linear", self.pooled_embedding[-1]).weight)

    def start_shallow(self, depth: int) -> None:
        """Restrict training to `depth` of the blocks, and make the others identities for when they become active.

        Training fewer blocks first makes a step cheaper, and a block whose output projections are zero adds zero to
        its tokens (Gong et al. 2019, "Efficient training of BERT by progressively stacking").
        """
        self.depth = depth
        taking_part = {id(block) for block in self._layers()}
        for block in cast("Iterable[TransformerBlock]", self.blocks):
            if id(block) not in taking_part:
                for last in (block.self_attn.o, block.cross_attn.o, cast("nn.Linear", block.ffn[-1])):
                    nn.init.zeros_(last.weight)
                    nn.init.zeros_(last.bias)

    def add_source(self) -> None:
        """Add an embedding of a source video's latents, initialised to zero so that it changes nothing at first."""
        size = (1, self.config.patch, self.config.patch)
        embedding = nn.Conv3d(self.config.in_dim, self.config.dim, size, size)
        for p in embedding.parameters():
            nn.init.zeros_(p)
        self.source_embedding = embedding.to(self.device, self.dtype)

    @property
    def reads_source(self) -> bool:
        """Whether the network follows a source video."""
        return self.source_embedding is not None

    # Quantities that do not depend on the tokens.

    @property
    def device(self) -> torch.device:
        return self.patch_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights and of the activations."""
        return self.patch_embedding.weight.dtype

    @property
    def latent_dtype(self) -> torch.dtype:
        """Precision of latents between calls: at least fp32, since rounding errors add up over sampler steps."""
        return torch.promote_types(self.dtype, torch.float32)

    def modulation(self, sigma: Sigma) -> Modulation:
        """Modulation of noise levels [b, f]; f = 1 stands for all latent frames."""
        half = self.config.freq_dim // 2
        # The angles are computed in fp64: at timestep 1000 an fp32 angle is off by 3e-5.
        exponents = torch.arange(half, dtype=torch.float64, device=sigma.device) / half
        angles = (NUM_TIMESTEPS * sigma.double())[..., None] * 10_000.0**-exponents
        waves = torch.cat((angles.cos(), angles.sin()), -1)
        time = self.time_embedding(waves.to(self.dtype))
        return Modulation(self.time_projection(time).unflatten(-1, (6, -1)), time)

    def project_text(self, text: TextStates, *, merge_padding: bool = False) -> TextKV:
        """Cross-attention keys and values of text states.

        Args:
            text: states [b, g, t, e]; the rows after a prompt are zero.
            merge_padding: whether one row represents most of the zero rows, whose keys and values are equal:
                n exp(s) = exp(s + log n). The result is the same up to rounding, with less work at inference.
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
        """Term that the mean of each prompt's states adds to the modulation; None if the network pools no text."""
        if self.pooled_embedding is None:
            return None
        used = (text != 0).any(-1, keepdim=True)  # mask of a prompt's own rows; those after it are zero
        mean = text.sum(2) / used.sum(2).clamp_min(1)
        added = self.pooled_embedding(mean.to(self.dtype)).unflatten(-1, (7, -1))
        return Modulation(added[:, :, :6], added[:, :, 6])

    # Forward passes: over a whole clip, teacher-forced, and over one chunk on a K/V cache.

    def forward(self, x_t: Latent, sigma: Sigma, text: TextStates, chunk: int | None = None) -> Latent:
        """Velocity of a whole clip: bidirectional, or chunk-causal if `chunk` is given.

        Args:
            x_t: noisy latents [b, c, f, h, w].
            sigma: noise level of each latent frame [b, f].
            text: states [b, g, t, e]; g divides f, and each group of f/g latent frames reads its own text.
            chunk: latent frames per chunk of chunk-causal attention; None: bidirectional attention.
        """
        self._check_chunks(x_t, chunk or 1)
        rope = self._rope(torch.arange(x_t.shape[2], device=x_t.device), x_t)
        attend = Bidirectional() if chunk is None else ChunkCausal(chunk * self._tokens(x_t))
        return self._run(x_t, self.modulation(sigma), self.project_text(text), rope, attend)

    def forward_sparse(
        self, x_t: Latent, sigma: Sigma, text: TextStates, kept: Int[Tensor, "b f s"]
    ) -> Float[Tensor, "b f s p"]:
        """Velocity of a subset of the tokens of each latent frame, with bidirectional attention among the subset.

        Dropping tokens makes training cheaper (Zheng et al. 2024, "Fast training of diffusion models with masked
        transformers").

        Args:
            x_t: noisy latents [b, c, f, h, w].
            sigma: noise level of each latent frame [b, f].
            text: states [b, g, t, e].
            kept: indices of the kept tokens in each latent frame.

        Returns:
            Velocity of each kept token, laid out as in `patches`.
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
        """Patchify latents: the values that each token covers."""
        p = self.config.patch
        return rearrange(latent, "b c f (h p) (w q) -> b f (h w) (p q c)", p=p, q=p)

    def forward_teacher_forced(
        self, x0: Latent, x_t: Latent, sigma: Sigma, text: TextStates, chunk: int, source: Latent | None = None
    ) -> Latent:
        """Velocity of each noisy chunk given the clean chunks before it, for all chunks at once (teacher forcing).

        The result equals that of a rollout in which every finished chunk equals `x0`. If `source` is given, the noisy
        chunks follow it.
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
        """Velocity of one chunk given its context and, for a network that reads one, the source's latents."""
        return (self._compiled_forward or self._run)(x_t, modulation, text, past.rope, Cached(past.kv), source)

    def compile_passes(self) -> None:
        """Compile the forward pass over a chunk, for each shape; on CUDA it is recorded as a graph and replayed.

        The cache grows until the window is full, so the first chunks of a process each need a compilation. A replay
        writes its output to the same buffer each time, so the output is copied.
        """
        mode = "reduce-overhead" if self.device.type == "cuda" else None
        program = torch.compile(self._run, dynamic=False, mode=mode)
        self._compiled_forward = lambda *given: program(*given).clone()

    def clean_pass(self, x0: Latent, clean: Modulation, text: TextKV, past: RotatedContext) -> Block:
        """K/V block of a finished chunk: one pass at sigma = 0.

        The last block's attention and feed-forward are skipped, since only its K/V projections are needed.
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
        """Context for a chunk of shape [b, c, f, h, w] that follows the cache: rotated keys, values, positions."""
        frames, (height, width) = x_shape[2], self._grid(x_shape)
        device = self.device
        positions = torch.arange(len(cache) + frames, device=device)
        kv = None
        if cache.blocks:
            rope = rope_for(positions[:-frames].float(), height, width, self.config.head_dim)
            values = cache.values()
            keys = torch.empty_like(values)
            for layer in range(len(keys)):  # layer by layer, since a second copy of all keys takes gigabytes for Wan
                keys[layer] = rope(cache.keys(layer))
            kv = keys, values
        own = rope_for(positions[-frames:].float(), height, width, self.config.head_dim)
        return RotatedContext(kv, own, cache.stop, cache.stop + frames)

    # Parts of the forward pass.

    def _layers(self) -> Sequence[TransformerBlock]:
        """Active blocks: all, or `depth` of them at even distances, beginning with the first."""
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
        if source is not None:  # it covers the last latent frames; in teacher forcing, those before are clean
            assert self.source_embedding is not None, "this network reads no source"
            followed = self._patchify(source, self.source_embedding)
            tokens = tokens + functional.pad(followed, (0, 0, tokens.shape[1] - followed.shape[1], 0))
        patches = self._through_blocks(tokens, modulation, text, rope, attend)
        p = self.config.patch
        return rearrange(patches, "b (f h w) (p q c) -> b c f (h p) (w q)", h=height, w=width, p=p, q=p).to(x.dtype)

    def _through_blocks(
        self, tokens: Tokens, modulation: Modulation, text: TextKV, rope: Rope, attend: Attend
    ) -> Float[Tensor, "b s p"]:
        """Apply the blocks and the head to embedded tokens; returns patches of velocity."""
        modulation = with_text(modulation, text)
        bias = text.bias
        for layer, block in enumerate(self._layers()):
            words = text.k[layer], text.v[layer], bias
            given = tokens, modulation.blocks, rope, words, layer, attend
            again = self.checkpoint_activations and torch.is_grad_enabled()
            tokens, _, _ = checkpoint(block, *given, use_reentrant=False) if again else block(*given)
        return self.head(tokens, modulation.head)

    def _embedded(self, x: Latent) -> Tokens:
        """Tokens of latents, with the learned position embedding if the network has one."""
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

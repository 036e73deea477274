"""Configurations of networks, codecs, rollouts and samplers: frozen, complete, checked when they are created."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from longtake.core.errors import ConfigError, InputError
from longtake.core.shapes import PictureSize, Stride


@dataclass(frozen=True, kw_only=True, slots=True)
class DiTConfig:
    """Sizes of a diffusion transformer of Wan's architecture, under Wan's names."""

    dim: int
    num_layers: int
    num_heads: int
    ffn_dim: int
    text_dim: int
    text_len: int  # text tokens that cross-attention reads; shorter prompts are zero-padded
    in_dim: int = 16  # latent channels
    freq_dim: int = 256
    patch: int = 2  # latent pixels per token in height and in width; a token covers 1 latent frame in time
    eps: float = 1e-6
    # Two extensions to Wan. The first suits fixed camera views, the second prompts that name objects.
    grid: tuple[int, int] | None = None  # rows and columns of the learned position embedding; None: no embedding
    pooled_text: bool = False  # whether the mean of the text states is added to the modulation

    def __post_init__(self) -> None:
        check_positive(self, "dim", "num_layers", "num_heads", "ffn_dim", "text_dim", "text_len", "in_dim", "patch")
        if self.dim % self.num_heads or (self.dim // self.num_heads) % 2:
            raise ConfigError(f"dim must split into {self.num_heads} heads of even width, got dim={self.dim}")

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecConfig:
    """Sizes of the light codec, of TAEHV's architecture.

    Decoder widths run from the latent (coarse) to the picture (fine), encoder widths the other way.
    """

    kind: Literal["light"] = "light"
    latent_channels: int = 16
    pixel_patch: int = 1  # space-to-depth of the picture before the first convolution
    encoder_widths: tuple[int, ...] = (64, 64, 64, 64)
    decoder_widths: tuple[int, ...] = (256, 128, 64, 64)
    blocks: int = 3  # MemBlocks per stage
    encoder_time: tuple[int, ...] = (2, 2, 1)  # factors of temporal pooling before each spatial stride
    decoder_time: tuple[int, ...] = (1, 2, 2)  # factors of temporal upsampling at each stage
    space: tuple[int, ...] = (2, 2, 2)  # spatial upsampling factors of the stages, from latent to picture
    pixels: Literal["signed", "unit"] = "signed"  # value range that the weights expect: [-1, 1], or [0, 1] as in TAEHV

    @property
    def stride(self) -> Stride:
        time, space = 1, self.pixel_patch
        for factor in self.decoder_time:
            time *= factor
        for factor in self.space:
            space *= factor
        return Stride(time=time, space=space)


@dataclass(frozen=True, kw_only=True, slots=True)
class CoarseCodecConfig:
    """Sizes of the coarse codec, whose latent cells each cover 16x16 pixels of 4 frames."""

    kind: Literal["coarse"] = "coarse"
    latent_channels: int = 16
    width: int = 256  # channels per latent cell
    decoder_blocks: int = 5
    middle_width: int = 128  # channels per 8x8-pixel patch in the decoder
    middle_blocks: int = 2
    leave_width: int = 64  # channels per 4x4-pixel patch in the decoder
    grid: tuple[int, int] | None = None  # rows and columns of cells with learned vectors and patches; None: none
    local_basis: int = 16  # learned pixel patches per cell of the grid

    def __post_init__(self) -> None:
        check_positive(self, "latent_channels", "width", "decoder_blocks", "local_basis")

    @property
    def stride(self) -> Stride:
        return Stride(time=4, space=16)


@dataclass(frozen=True, kw_only=True, slots=True)
class WanVAEConfig:
    """Sizes of the Wan 2.1 video autoencoder; the defaults give the published one, of 126,892,531 parameters."""

    kind: Literal["wan"] = "wan"
    latent_channels: int = 16
    base_dim: int = 96
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2  # residual blocks per encoder stage; decoder stages have one more
    temporal_downsample: tuple[bool, ...] = (False, True, True)  # temporal stride after each stage but the last
    mean: tuple[float, ...] | None = None  # per-channel mean of the latents; None: the published values
    std: tuple[float, ...] | None = None  # per-channel standard deviation; None: the published values

    @property
    def stride(self) -> Stride:
        return Stride(time=2 ** sum(self.temporal_downsample), space=2 ** len(self.temporal_downsample))


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamConfig:
    """Chunk, window and attention sink of a rollout, in latent frames."""

    chunk: int  # latent frames that are denoised together
    window: int  # latent frames that are attended to, the current chunk and the sink included
    sink: int = 0  # latent frames at the start of the take that are never evicted

    def __post_init__(self) -> None:
        check_positive(self, "chunk", "window")
        for name, length in (("window", self.window), ("sink", self.sink)):
            if length % self.chunk:
                raise ConfigError(f"{name}={length} is not a whole number of chunks of {self.chunk}")
        if self.window < self.chunk + self.sink:
            raise ConfigError(
                f"window must hold the sink and a chunk: window={self.window}, sink={self.sink}, chunk={self.chunk}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """Settings of a sampler.

    The teacher needs classifier-free guidance; for the student it is 1, since distillation includes it.
    """

    num_steps: int
    shift: float
    guidance_scale: float = 1.0
    guidance_below: float = 1.0  # highest noise level with guidance (Kynkaanniemi et al. 2024); 1: all have it
    sigmas: tuple[float, ...] = ()  # noise levels of the student's distillation; (): evenly spaced, then shifted
    first_sigmas: tuple[float, ...] = ()  # noise levels of a chunk without memory before it; (): as for the others
    solver: Literal["euler", "heun", "unipc"] = "euler"  # integrator of the teacher's many-step sampler

    def __post_init__(self) -> None:
        check_positive(self, "num_steps", "shift")
        if self.sigmas and len(self.sigmas) != self.num_steps:
            raise ConfigError(f"{self.num_steps} steps need as many sigmas, got {len(self.sigmas)}")
        for name, sigmas in (("sigmas", self.sigmas), ("first_sigmas", self.first_sigmas)):
            if sigmas and not all(1 >= a > b > 0 for a, b in pairwise((*sigmas, 1e-9))):
                raise ConfigError(f"{name} fall from at most 1 to above 0, got {sigmas}")

    def with_steps(self, num_steps: int | None) -> "SamplingConfig":
        """Settings with `num_steps` evenly spaced steps; unchanged for None or the present number."""
        if num_steps in (None, self.num_steps):
            return self
        return replace(self, num_steps=num_steps, sigmas=(), first_sigmas=())


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """Everything that sampling with a model needs besides its weights."""

    name: str
    description: str
    dit: DiTConfig
    codec: CodecConfig | CoarseCodecConfig | WanVAEConfig
    stream: StreamConfig
    student: SamplingConfig
    teacher: SamplingConfig
    size: PictureSize
    fps: float
    clip_latent_frames: int  # length of the longest clip in the teacher's training
    text: Literal["minilm", "umt5"] = "minilm"  # text encoder
    negative_prompt: str = ""  # default negative prompt of guidance

    def __post_init__(self) -> None:
        check_positive(self, "fps", "clip_latent_frames")
        if self.dit.in_dim != self.codec.latent_channels:
            raise ConfigError(
                f"the network reads {self.dit.in_dim} latent channels, the codec writes {self.codec.latent_channels}"
            )
        rows, columns = self.latent_grid(self.size)
        tokens = rows // self.dit.patch, columns // self.dit.patch
        for what, grid, own in (("network", self.dit.grid, tokens), ("codec", self.codec_grid, (rows, columns))):
            if grid not in (None, own):
                raise ConfigError(f"the {what} has learned a grid of {grid}, pictures of {self.size} have {own}")

    @property
    def codec_grid(self) -> tuple[int, int] | None:
        """Rows and columns of the codec's learned grid; None for a codec without one."""
        return self.codec.grid if isinstance(self.codec, CoarseCodecConfig) else None

    def latent_grid(self, size: PictureSize) -> tuple[int, int]:
        """Latent rows and columns of pictures of a size.

        Raises:
            InputError: a side does not fit the codec and the network, or the model's learned grid is of another size.
        """
        if size != self.size and not (self.dit.grid is None and self.codec_grid is None):
            raise InputError(f"{self.name} makes pictures of {self.size} only, got {size}; --scale writes them larger")
        return size.latent(self.codec.stride, self.dit.patch)


def check_positive(config: object, *names: str) -> None:
    """Check that the named fields of a configuration are positive.

    Raises:
        ConfigError: a field is zero or negative.
    """
    for name in names:
        value = getattr(config, name)
        if not value > 0:
            raise ConfigError(f"{type(config).__name__}.{name} must be positive, got {value}")

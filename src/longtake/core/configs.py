"""What a network, a codec and a stream are made of. Frozen, complete, resolved once at the door."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from longtake.core.errors import ConfigError, InputError
from longtake.core.shapes import PictureSize, Stride


@dataclass(frozen=True, kw_only=True, slots=True)
class DiTConfig:
    """The Wan-shaped diffusion transformer. Names of sizes are Wan's own."""

    dim: int
    num_layers: int
    num_heads: int
    ffn_dim: int
    text_dim: int
    text_len: int  # rows of text states that cross-attention reads; shorter prompts are zero-padded
    in_dim: int = 16  # latent channels
    freq_dim: int = 256
    patch: int = 2  # latent pixels a token covers in height and in width; 1 latent frame in time
    eps: float = 1e-6
    # What Wan does not have, for views that never change and for prompts that name things:
    grid: tuple[int, int] | None = None  # rows and columns of tokens, each with a learned vector; None: none
    pooled_text: bool = False  # the mean of the text states modulates the blocks, besides being read token by token

    def __post_init__(self) -> None:
        check_positive(self, "dim", "num_layers", "num_heads", "ffn_dim", "text_dim", "text_len", "in_dim", "patch")
        if self.dim % self.num_heads or (self.dim // self.num_heads) % 2:
            raise ConfigError(f"dim must split into {self.num_heads} heads of even width, got dim={self.dim}")

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecConfig:
    """The light codec (TAEHV's shape). Widths run from the latent (coarse) to the picture (fine)."""

    kind: Literal["light"] = "light"
    latent_channels: int = 16
    pixel_patch: int = 1  # space-to-depth of the picture before the first convolution
    encoder_widths: tuple[int, ...] = (64, 64, 64, 64)
    decoder_widths: tuple[int, ...] = (256, 128, 64, 64)
    blocks: int = 3  # MemBlocks a stage
    encoder_time: tuple[int, ...] = (2, 2, 1)  # pooling of time before each spatial stride
    decoder_time: tuple[int, ...] = (1, 2, 2)  # growth of time at each stage
    space: tuple[int, ...] = (2, 2, 2)  # spatial factor of each stage, latent to picture
    pixels: Literal["signed", "unit"] = "signed"  # what the weights know: [-1, 1], or [0, 1] as TAEHV's own do

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
    """The codec that works on its latent grid, 16x16 pixels of 4 frames a cell."""

    kind: Literal["coarse"] = "coarse"
    latent_channels: int = 16
    enter_width: int = 64  # of patches of 4x4 pixels, in the encoder
    width: int = 256  # on the latent grid
    encoder_blocks: int = 2
    decoder_blocks: int = 5
    middle_width: int = 128  # of patches of 8x8 pixels, in the decoder
    middle_blocks: int = 2
    leave_width: int = 64  # of patches of 4x4 pixels, in the decoder
    grid: tuple[int, int] | None = None  # rows and columns of cells that have learned vectors and patches; None: none
    local_basis: int = 16  # patches of pixels that each cell of the grid knows by heart

    def __post_init__(self) -> None:
        check_positive(self, "latent_channels", "width", "encoder_blocks", "decoder_blocks", "local_basis")

    @property
    def stride(self) -> Stride:
        return Stride(time=4, space=16)


@dataclass(frozen=True, kw_only=True, slots=True)
class WanVAEConfig:
    """The Wan 2.1 video autoencoder. The defaults are the published one: 126,892,531 parameters."""

    kind: Literal["wan"] = "wan"
    latent_channels: int = 16
    base_dim: int = 96
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2  # a stage of the encoder; the decoder has one more
    temporal_downsample: tuple[bool, ...] = (False, True, True)  # after each stage but the last
    mean: tuple[float, ...] | None = None  # of the latents, per channel; None: the published ones
    std: tuple[float, ...] | None = None

    @property
    def stride(self) -> Stride:
        return Stride(time=2 ** sum(self.temporal_downsample), space=2 ** len(self.temporal_downsample))


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamConfig:
    """How a rollout spends its memory. Lengths are in latent frames."""

    chunk: int
    window: int  # latent frames in sight, the chunk being made and the sink included
    sink: int = 0  # the first latent frames, never evicted

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
    """How a network is sampled. The teacher needs guidance; distillation puts it into the student."""

    num_steps: int
    shift: float
    guidance_scale: float = 1.0
    sigmas: tuple[float, ...] = ()  # noise levels a student was distilled at; (): evenly spaced, then shifted
    solver: Literal["euler", "heun", "unipc"] = "euler"  # of a teacher

    def __post_init__(self) -> None:
        check_positive(self, "num_steps", "shift")
        if self.sigmas and len(self.sigmas) != self.num_steps:
            raise ConfigError(f"{self.num_steps} steps need as many sigmas, got {len(self.sigmas)}")
        if self.sigmas and not all(1 >= a > b > 0 for a, b in pairwise((*self.sigmas, 1e-9))):
            raise ConfigError(f"sigmas fall from at most 1 to above 0, got {self.sigmas}")

    def with_steps(self, num_steps: int | None) -> "SamplingConfig":
        """The same with another number of steps, evenly spaced; None: its own."""
        if num_steps in (None, self.num_steps):
            return self
        return replace(self, num_steps=num_steps, sigmas=())


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """One model family: everything that sampling needs to know besides the weights."""

    name: str
    description: str
    dit: DiTConfig
    codec: CodecConfig | CoarseCodecConfig | WanVAEConfig
    stream: StreamConfig
    student: SamplingConfig
    teacher: SamplingConfig
    size: PictureSize
    fps: float
    clip_latent_frames: int  # the longest clip the teacher was trained on
    text: Literal["minilm", "umt5"] = "minilm"  # who turns prompts into text states
    negative_prompt: str = ""  # what the teacher is guided away from

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
        """Rows and columns of the cells that the codec has learned, where it has."""
        return self.codec.grid if isinstance(self.codec, CoarseCodecConfig) else None

    def latent_grid(self, size: PictureSize) -> tuple[int, int]:
        """Latent rows and columns of pictures of a size.

        Raises:
            InputError: a side does not fit the codec and the network, or the model has learned another size by heart.
        """
        if size != self.size and not (self.dit.grid is None and self.codec_grid is None):
            raise InputError(f"{self.name} makes pictures of {self.size} only, got {size}; --scale writes them larger")
        return size.latent(self.codec.stride, self.dit.patch)


def check_positive(config: object, *names: str) -> None:
    """Refuse fields that are not above zero.

    Raises:
        ConfigError: names the field and its value.
    """
    for name in names:
        value = getattr(config, name)
        if not value > 0:
            raise ConfigError(f"{type(config).__name__}.{name} must be positive, got {value}")

"""The Wan 2.1 video autoencoder (Wan team, 2025, sec. 4.1), in streaming form, under the original parameter names.

Its convolutions are three-dimensional and causal: each reads the current frame and the two before it, so the state is
the last two input frames of each convolution. Time is halved or doubled by convolutions that *the first latent frame
skips*, since it holds one frame; in the decoder it does not enter their history either. Coding in pieces equals coding
at once for any split.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal, cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from longtake.core.configs import WanVAEConfig
from longtake.core.shapes import Latent, Video
from longtake.nets.light_codec import CodecState, check_latent, check_video

Maps = Float[Tensor, "b _ _ _ _"]  # axes: batch, channels, frames, height, width

# Mean and standard deviation of the latents per channel; the diffusion model reads (z - MEAN) / STD.
# fmt: off
MEAN = (-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
        0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921)
STD = (2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
       3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160)
# fmt: on


class History:
    """Input frames kept from pass to pass for each convolution, in the order in which the convolutions run."""

    def __init__(self, kept: Sequence[Tensor], *, is_first: bool) -> None:
        """Start a pass with the frames `kept` by the last one; `is_first` marks the first latent frame of a video."""
        self.is_first = is_first
        self._kept = iter(kept)
        self.written: list[Tensor] = []

    def join(self, x: Maps, length: int) -> Maps:
        """Prepend the `length` frames before `x` (zeros at the start of a video), and store the new last frames."""
        empty = x.new_zeros(x.shape[0], x.shape[1], 0, *x.shape[3:])
        before = next(self._kept, empty)
        joined = torch.cat((before, x), 2)
        self.written.append(joined[:, :, -length:].clone())
        missing = length - before.shape[2]
        return functional.pad(joined, (0, 0, 0, 0, missing, 0)) if missing else joined

    def keep(self, x: Maps) -> None:
        """Store frames for the next pass without prepending any."""
        next(self._kept, None)
        self.written.append(x.clone())


class CausalConv3d(nn.Conv3d):
    """Convolution that is padded in time on the past side only."""

    def __init__(self, dim_in: int, dim_out: int, kernel: int | tuple[int, int, int], stride: int = 1) -> None:
        time, height, width = (kernel,) * 3 if isinstance(kernel, int) else kernel
        padding = (0, height // 2, width // 2)
        super().__init__(dim_in, dim_out, (time, height, width), (stride, 1, 1), padding)

    def stream(self, x: Maps, history: History) -> Maps:
        """Convolve `x` together with the frames before it."""
        reach = self.kernel_size[0] - 1
        return self(history.join(x, reach) if reach else x)


class ChannelRMSNorm(nn.Module):
    """Root-mean-square norm over the channels: x / |x| * sqrt(channels) * gamma."""

    def __init__(self, dim: int, axes: int) -> None:
        """Create a norm of `dim` channels, which are followed by `axes` axes: 3 for clips, 2 for frames."""
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim, *(1,) * axes))
        self.scale = dim**0.5

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(x, dim=1) * self.scale * self.gamma


class ResidualBlock(nn.Module):
    """Residual block: twice norm, SiLU and convolution."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            ChannelRMSNorm(dim_in, 3),
            nn.SiLU(),
            CausalConv3d(dim_in, dim_out, 3),
            ChannelRMSNorm(dim_out, 3),
            nn.SiLU(),
            nn.Identity(),  # placeholder for training's dropout, which keeps the index of the next convolution
            CausalConv3d(dim_out, dim_out, 3),
        )
        self.shortcut = CausalConv3d(dim_in, dim_out, 1) if dim_in != dim_out else nn.Identity()

    def stream(self, x: Maps, history: History) -> Maps:
        h = x
        for layer in self.residual:
            h = layer.stream(h, history) if isinstance(layer, CausalConv3d) else layer(h)
        return h + self.shortcut(x)


class AttentionBlock(nn.Module):
    """Single-head self-attention over the positions of each frame."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = ChannelRMSNorm(dim, 2)
        self.to_qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def stream(self, x: Maps, history: History) -> Maps:
        del history
        frames = rearrange(x, "b c f h w -> (b f) c h w")
        q, k, v = rearrange(self.to_qkv(self.norm(frames)), "n (three c) h w -> three n 1 (h w) c", three=3)
        out = functional.scaled_dot_product_attention(q, k, v)
        out = self.proj(rearrange(out, "n 1 (h w) c -> n c h w", h=x.shape[3]))
        return x + rearrange(out, "(b f) c h w -> b c f h w", b=len(x))


class Resample(nn.Module):
    """Down- or upsampling by 2 of height and width, and of time if the mode ends in 3d."""

    def __init__(self, dim: int, mode: Literal["upsample2d", "upsample3d", "downsample2d", "downsample3d"]) -> None:
        super().__init__()
        self.mode = mode
        if mode.startswith("upsample"):
            grow = nn.Upsample(scale_factor=2.0, mode="nearest-exact")
            self.resample = nn.Sequential(grow, nn.Conv2d(dim, dim // 2, 3, padding=1))
        else:
            self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(dim, dim, 3, stride=2))
        if mode == "upsample3d":
            self.time_conv = CausalConv3d(dim, 2 * dim, (3, 1, 1))
        elif mode == "downsample3d":
            self.time_conv = CausalConv3d(dim, dim, (3, 1, 1), stride=2)

    def stream(self, x: Maps, history: History) -> Maps:
        if self.mode == "upsample3d":
            if history.is_first:
                history.keep(x[:, :, :0])  # an empty history: the first latent frame does not enter it
            else:
                x = rearrange(self.time_conv.stream(x, history), "b (two c) f h w -> b c (f two) h w", two=2)
        frames = self.resample(rearrange(x, "b c f h w -> (b f) c h w"))
        x = rearrange(frames, "(b f) c h w -> b c f h w", b=len(x))
        if self.mode == "downsample3d":
            if history.is_first:
                history.keep(x[:, :, -1:])
            else:
                x = self.time_conv(history.join(x, 1))
        return x


Stage = ResidualBlock | AttentionBlock | Resample


class Coder(nn.Module):
    """Common base of encoder and decoder: first convolution, middle blocks and head."""

    def __init__(self, dim_first: int, dim_middle: int, dim_last: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = CausalConv3d(channels_in, dim_first, 3)
        self.middle = nn.Sequential(
            ResidualBlock(dim_middle, dim_middle), AttentionBlock(dim_middle), ResidualBlock(dim_middle, dim_middle)
        )
        self.head = nn.Sequential(ChannelRMSNorm(dim_last, 3), nn.SiLU(), CausalConv3d(dim_last, channels_out, 3))

    def through(self, x: Maps, stages: Iterable[nn.Module], history: History) -> Maps:
        x = self.conv1.stream(x, history)
        for stage in stages:
            x = cast("Stage", stage).stream(x, history)
        norm, act, conv = self.head
        return cast("CausalConv3d", conv).stream(act(norm(x)), history)


class Encoder(Coder):
    """Encoder from pixels to the mean and log-variance of latents."""

    def __init__(self, config: WanVAEConfig) -> None:
        widths = [config.base_dim * mult for mult in (1, *config.dim_mult)]
        super().__init__(widths[0], widths[-1], widths[-1], 3, 2 * config.latent_channels)
        stages: list[nn.Module] = []
        for i, (width, wider) in enumerate(pairwise(widths)):
            stages.append(ResidualBlock(width, wider))
            stages += [ResidualBlock(wider, wider) for _ in range(config.num_res_blocks - 1)]
            if i < len(config.temporal_downsample):
                stages.append(Resample(wider, "downsample3d" if config.temporal_downsample[i] else "downsample2d"))
        self.downsamples = nn.Sequential(*stages)

    def stream(self, x: Maps, history: History) -> Maps:
        return self.through(x, (*self.downsamples, *self.middle), history)


class Decoder(Coder):
    """Decoder from latents to pixels."""

    def __init__(self, config: WanVAEConfig) -> None:
        mults = config.dim_mult[::-1]
        widths = [config.base_dim * mult for mult in (mults[0], *mults)]
        super().__init__(widths[0], widths[0], widths[-1], config.latent_channels, 3)
        stages: list[nn.Module] = []
        for i, (width, narrower) in enumerate(pairwise(widths)):
            stages.append(ResidualBlock(width // 2 if i else width, narrower))
            stages += [ResidualBlock(narrower, narrower) for _ in range(config.num_res_blocks)]
            if i < len(config.temporal_downsample):
                grows = config.temporal_downsample[::-1][i]
                stages.append(Resample(narrower, "upsample3d" if grows else "upsample2d"))
        self.upsamples = nn.Sequential(*stages)

    def stream(self, x: Maps, history: History) -> Maps:
        return self.through(x, (*self.middle, *self.upsamples), history)


class WanVAE(nn.Module):
    """Wan 2.1 codec between videos and normalised latents, piece by piece or at once; interface as `LightCodec`."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        self.config = config
        both = 2 * config.latent_channels
        self.encoder = Encoder(config)
        self.conv1 = CausalConv3d(both, both, 1)
        self.conv2 = CausalConv3d(config.latent_channels, config.latent_channels, 1)
        self.decoder = Decoder(config)
        mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (config.mean or MEAN, config.std or STD))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights, as in `LightCodec.dtype`."""
        return self.conv1.weight.dtype

    def encode(self, video: Video, state: CodecState) -> tuple[Latent, CodecState]:
        """Encode the next piece of a video to normalised latents, the posterior's mean; see `LightCodec.encode`.

        Raises:
            ShapeError: the number of frames does not fit, or a side is not a multiple of the stride.
        """
        check_video(video, self.config.stride, state)
        x, state = self._stream(self.encoder, video.to(self.dtype), state, self.config.stride.time)
        mean = self.conv1(x)[:, : self.config.latent_channels]
        return ((mean - self.mean) / self.std).to(video.dtype), state

    def decode(self, latent: Latent, state: CodecState) -> tuple[Video, CodecState]:
        """Decode the next latent frames to pixels: 1 frame for the first of a video, 4 for each later one.

        Raises:
            ShapeError: the latents have the wrong number of channels.
        """
        check_latent(latent, self.config.latent_channels)
        x = self.conv2(latent.to(self.dtype) * self.std + self.mean)
        x, state = self._stream(self.decoder, x, state, 1)
        return x.clamp(-1, 1).to(latent.dtype), state

    def _stream(self, coder: Encoder | Decoder, x: Maps, state: CodecState, step: int) -> tuple[Maps, CodecState]:
        """Run the coder on `step` frames (one latent frame) at a time, to bound the memory of activations.

        The first frame of a video is a piece of its own.
        """
        kept, done = state.frames, []
        first = 0 if state.started else 1
        for piece in (x[:, :, :first], *x[:, :, first:].split(step, 2)):
            if piece.shape[2]:
                history = History(kept, is_first=not state.started and not done)
                done.append(coder.stream(piece, history))
                kept = tuple(history.written)
        return torch.cat(done, 2), CodecState(kept, True)

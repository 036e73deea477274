"""The light codec: a streaming, causal video autoencoder of TAEHV's architecture.

Its convolutions are two-dimensional. Information passes through time only in MemBlocks (each also reads its input at
the previous frame) and in temporal pooling and upsampling of whole groups of frames. So its state is one frame per
MemBlock, and coding in pieces equals coding at once for any split. The first latent frame holds one frame: the encoder
repeats that frame to fill the group, and the decoder drops the repeats.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from longtake.core.configs import CodecConfig
from longtake.core.errors import ShapeError
from longtake.core.shapes import Latent, Stride, Video


@dataclass(frozen=True, slots=True)
class CodecState:
    """State of an encoder or decoder between pieces of a video. Immutable, so keeping it allows a rewind."""

    frames: tuple[Float[Tensor, "b ..."], ...] = ()  # last inputs of each block that reads earlier frames
    started: bool = False  # whether the first piece has been coded


def check_video(video: Video, stride: Stride, state: CodecState) -> None:
    """Check that a codec of this stride can encode a piece of a video.

    Raises:
        ShapeError: the number of frames does not fit, or a side is not a multiple of the stride.
    """
    if not state.started:
        stride.latent_frames(video.shape[2])
    elif video.shape[2] % stride.time:
        raise ShapeError(f"later pieces of a video hold a multiple of {stride.time} frames, got {video.shape[2]}")
    for name, side in (("height", video.shape[3]), ("width", video.shape[4])):
        if side % stride.space:
            raise ShapeError(f"{name} must be a multiple of {stride.space} pixels, got {side}")


def check_latent(latent: Latent, channels: int) -> None:
    """Check that latents have the codec's number of channels.

    Raises:
        ShapeError: they have the wrong number of channels.
    """
    if latent.shape[1] != channels:
        raise ShapeError(
            f"latent has {latent.shape[1]} channels, the codec expects {channels}; was it made by another codec?"
        )


class MemBlock(nn.Module):
    """Residual block that also reads the previous frame: act(conv(x, previous) + x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.act = nn.ReLU()

    def forward(self, x: Tensor, previous: Tensor) -> Tensor:
        return self.act(self.conv(torch.cat((x, previous), 1)) + x)


class TimePool(nn.Module):
    """Temporal pooling of `factor` frames into one: stacked channels and a 1x1 convolution."""

    def __init__(self, width: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv2d(width * factor, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(rearrange(x, "(b k) c h w -> b (k c) h w", k=self.factor))


class TimeGrow(nn.Module):
    """Temporal upsampling of one frame to `factor` frames: a 1x1 convolution and unstacked channels."""

    def __init__(self, width: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv2d(width, width * factor, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(self.conv(x), "b (k c) h w -> (b k) c h w", k=self.factor)


class Clamp(nn.Module):
    """Soft limit of latents to [-3, 3], so that outliers do not saturate the picture."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class LightCodec(nn.Module):
    """Light codec between videos and normalised latents, piece by piece or at once."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        patched = 3 * config.pixel_patch**2
        coarse, *finer = config.decoder_widths
        enc = config.encoder_widths
        encoder: list[nn.Module] = [nn.Conv2d(patched, enc[0], 3, padding=1), nn.ReLU()]
        for i, (time, space) in enumerate(zip(config.encoder_time, config.space, strict=True)):
            encoder += [
                TimePool(enc[i], time),
                nn.Conv2d(enc[i], enc[i + 1], 3, stride=space, padding=1, bias=False),
                *(MemBlock(enc[i + 1]) for _ in range(config.blocks)),
            ]
        encoder.append(nn.Conv2d(enc[-1], config.latent_channels, 3, padding=1))
        self.encoder = nn.Sequential(*encoder)

        decoder: list[nn.Module] = [
            Clamp(),
            nn.Conv2d(config.latent_channels, coarse, 3, padding=1),
            nn.ReLU(),
        ]
        width = coarse
        for time, space, following in zip(config.decoder_time, config.space, finer, strict=True):
            decoder += [
                *(MemBlock(width) for _ in range(config.blocks)),
                nn.Upsample(scale_factor=space) if space > 1 else nn.Identity(),
                TimeGrow(width, time),
                nn.Conv2d(width, following, 3, padding=1, bias=False),
            ]
            width = following
        decoder += [nn.ReLU(), nn.Conv2d(width, patched, 3, padding=1)]
        self.decoder = nn.Sequential(*decoder)
        if not next(self.parameters()).is_meta:  # weights that will be loaded are not initialised first
            self.init_weights()

    def init_weights(self) -> None:
        """Initialise so that activations keep their scale (He et al. 2015) and MemBlocks are close to identities.

        torch's default initialisation shrinks activations by a factor of 1.7 per layer, so that the first hundred
        training steps give grey pictures.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, MemBlock):
                    first, second, last = (conv for conv in module.conv if isinstance(conv, nn.Conv2d))
                    for conv in (first, second):
                        conv.weight.mul_(2**0.5)  # gain that makes up for the ReLU
                    last.weight.mul_(0.1)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights. Inputs are converted to it; outputs have the precision of the inputs."""
        return next(self.parameters()).dtype

    def encode(self, video: Video, state: CodecState) -> tuple[Latent, CodecState]:
        """Encode the next piece of a video to latents.

        Args:
            video: pixels in [-1, 1], [b, 3, f, h, w]. At the start of a video f is 1 more than a multiple
                of 4, later a multiple of 4.
            state: `CodecState()` at the start, then the state that the last call returned.

        Raises:
            ShapeError: the number of frames does not fit, or a side is not a multiple of the stride.
        """
        check_video(video, self.config.stride, state)
        if not state.started:
            repeats = video[:, :, :1].expand(-1, -1, self.config.stride.time - 1, -1, -1)
            video = torch.cat((repeats, video), 2)
        x, frames = self._stream(self.encoder, self._to_patches(video), len(video), state.frames)
        latent = rearrange(x, "(b f) c h w -> b c f h w", b=len(video))
        return latent.to(video.dtype), CodecState(frames, True)

    def decode(self, latent: Latent, state: CodecState) -> tuple[Video, CodecState]:
        """Decode the next latent frames to pixels in [-1, 1]: 1 frame for the first of a video, 4 for each later one.

        Raises:
            ShapeError: the latents have the wrong number of channels.
        """
        check_latent(latent, self.config.latent_channels)
        x = rearrange(latent.to(self.dtype), "b c f h w -> (b f) c h w")
        x, frames = self._stream(self.decoder, x, len(latent), state.frames)
        video = self._from_patches(x, len(latent))
        if not state.started:
            video = video[:, :, self.config.stride.time - 1 :]
        return video.to(latent.dtype), CodecState(frames, True)

    def _stream(
        self,
        layers: nn.Sequential,
        x: Float[Tensor, "bf c h w"],
        batch: int,
        remembered: Sequence[Tensor],
    ) -> tuple[Float[Tensor, "bg d i j"], tuple[Tensor, ...]]:
        """Apply the layers, passing each MemBlock its input and its input one frame earlier.

        Returns:
            The output, and the last input frame of each MemBlock for the next piece.
        """
        kept = []
        for layer in layers:
            if not isinstance(layer, MemBlock):
                x = layer(x)
                continue
            now = x.unflatten(0, (batch, -1))
            first = remembered[len(kept)][:, None] if remembered else torch.zeros_like(now[:, :1])
            kept.append(now[:, -1].clone())  # a copy, since a view would keep all frames of the piece in memory
            x = layer(x, torch.cat((first, now[:, :-1]), 1).flatten(0, 1))
        return x, tuple(kept)

    def _to_patches(self, video: Video) -> Tensor:
        p = self.config.pixel_patch
        if self.config.pixels == "unit":
            video = (video + 1) / 2
        return rearrange(video.to(self.dtype), "b c f (h p) (w q) -> (b f) (c p q) h w", p=p, q=p)

    def _from_patches(self, x: Tensor, batch: int) -> Video:
        p = self.config.pixel_patch
        if self.config.pixels == "unit":
            x = 2 * x - 1
        return rearrange(x, "(b f) (c p q) h w -> b c f (h p) (w q)", b=batch, p=p, q=p)

"""The light codec: a causal video autoencoder of TAEHV's shape, streaming in both directions.

Two-dimensional convolutions; time passes only through MemBlocks (each sees the previous frame's input at its
level) and through pooling or growth of time by whole groups. So its whole state is one frame per MemBlock,
and coding in pieces equals coding at once for any split. The first latent frame holds one frame: the encoder
sees that frame repeated, the decoder drops the repeats.
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
    """What one direction of a codec remembers between pieces of a video. A value: keep it to go back."""

    frames: tuple[Float[Tensor, "b ..."], ...] = ()  # of each block that looks back, the last it saw
    started: bool = False


def check_video(video: Video, stride: Stride, state: CodecState) -> None:
    """Refuse a piece of a video that no codec of this stride can take.

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
    """Refuse latents of another codec.

    Raises:
        ShapeError: they have the wrong number of channels.
    """
    if latent.shape[1] != channels:
        raise ShapeError(
            f"latent has {latent.shape[1]} channels, the codec expects {channels}; was it made by another codec?"
        )


class MemBlock(nn.Module):
    """Residual block that also sees the frame before: act(conv(x, previous) + x)."""

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
    """`factor` frames become one: stack their channels, mix."""

    def __init__(self, width: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv2d(width * factor, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(rearrange(x, "(b k) c h w -> b (k c) h w", k=self.factor))


class TimeGrow(nn.Module):
    """One frame becomes `factor`: spread over channels, unstack."""

    def __init__(self, width: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv2d(width, width * factor, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(self.conv(x), "b (k c) h w -> (b k) c h w", k=self.factor)


class Clamp(nn.Module):
    """Soft limit on latents, so that a wild latent cannot burn the picture."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class LightCodec(nn.Module):
    """Videos to normalised latents and back, piece by piece or at once."""

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
        self.init_weights()

    def init_weights(self) -> None:
        """Signals keep their size through all layers (He et al. 2015); residual blocks begin as nearly nothing.

        torch's own start loses a factor of 1.7 a layer: the codec then spends its first hundred steps on grey.
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
                        conv.weight.mul_(2**0.5)  # what the activation takes away
                    last.weight.mul_(0.1)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights. What comes in is converted; what goes out has the precision of what came in."""
        return next(self.parameters()).dtype

    def encode(self, video: Video, state: CodecState) -> tuple[Latent, CodecState]:
        """Latents of the next piece of a video.

        Args:
            video: pixels in [-1, 1], [b, 3, f, h, w]. At the start of a video f is 1 more than a multiple
                of 4, later a multiple of 4.
            state: `CodecState()` at the start, then what the last call returned.

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
        """Pixels in [-1, 1] of the next latent frames: 1 for the first of a video, then 4 for each.

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
        """Run the layers; each MemBlock sees, before each frame, the frame before it."""
        kept = []
        for layer in layers:
            if not isinstance(layer, MemBlock):
                x = layer(x)
                continue
            now = x.unflatten(0, (batch, -1))
            first = remembered[len(kept)][:, None] if remembered else torch.zeros_like(now[:, :1])
            kept.append(now[:, -1].clone())  # a view would keep the frames before it alive
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

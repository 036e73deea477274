"""A patch discriminator for short videos, and the corrected targets that it gives a decoder.

After Seraena (Ollin Boer Bohan): the discriminator D reads three successive frames and the latent they were decoded
from, and scores at several depths how real each patch is. The decoder does not minimise these outputs but regresses on
a corrected target: the decoded frames, moved in the direction in which D's outputs for them and for the true frames
converge. The direction is scaled to unit standard deviation. As D compares frames of the same moment of the same scene,
inventing another scene gains nothing.

    D(real) -> 1, D(fake) -> -1        (least squares, Mao et al. 2017)
    correction = -grad_fake | D(fake) - D(real) |^2, divided by its own standard deviation
"""

from itertools import pairwise

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

FRAMES = 3  # number of successive frames that the discriminator reads together
REDUCTION = 8  # downsampling factor of its outputs relative to the frames


class PatchDiscriminator(nn.Module):
    """The discriminator of the module's docstring, with a replay buffer of earlier fakes."""

    def __init__(self, latent_channels: int, widths: tuple[int, ...], kept: int, patch: int, stride: int) -> None:
        """Build the layers and an empty replay buffer.

        Args:
            latent_channels: channels of the latents.
            widths: channels of the convolutions; all but the first and the last halve the grid.
            kept: capacity of the replay buffer.
            patch: side of the frames in pixels.
            stride: side of a latent cell in pixels.
        """
        super().__init__()
        self.stride = stride
        steps = list(pairwise((3 * FRAMES + latent_channels, *widths)))
        strides = [1, *[2] * (len(steps) - 2), 1]
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 3 if step == 1 else 4, step, 1), nn.GroupNorm(8, after), nn.LeakyReLU(0.2)
            )
            for (before, after), step in zip(steps, strides, strict=True)
        )
        self.heads = nn.ModuleList(nn.Conv2d(after, 1, 1) for _, after in steps)
        self.kept_frames: UInt8[Tensor, "n c h w"]
        self.kept_latents: Float[Tensor, "n d h w"]
        self.num_kept: Tensor
        self.register_buffer("kept_frames", torch.zeros(kept, 3 * FRAMES, patch, patch, dtype=torch.uint8))
        self.register_buffer("kept_latents", torch.zeros(kept, latent_channels, patch // stride, patch // stride))
        self.register_buffer("num_kept", torch.zeros((), dtype=torch.long))

    def forward(self, frames: Float[Tensor, "b c h w"], latent: Float[Tensor, "b d _h _w"]) -> Float[Tensor, "b i j"]:
        """Outputs for patches, averaged over depths.

        Args:
            frames: three successive frames stacked along the channels, pixels in [-1, 1].
            latent: latent that the frames were decoded from.
        """
        x = torch.cat((frames, functional.interpolate(latent, frames.shape[2:])), 1)
        size = frames.shape[2] // REDUCTION, frames.shape[3] // REDUCTION
        verdicts = []
        for layer, head in zip(self.layers, self.heads, strict=True):
            x = layer(x)
            verdicts.append(functional.adaptive_avg_pool2d(head(x), size))
        return torch.stack(verdicts).mean(0)[:, 0]

    @torch.no_grad()
    def keep(self, frames: Float[Tensor, "b c h w"], latent: Float[Tensor, "b d _h _w"], rng: torch.Generator) -> None:
        """Store fakes in the buffer; once it is full, they replace random entries."""
        for picture, code in zip(frames, latent, strict=True):
            num = int(self.num_kept)
            row = num if num < len(self.kept_frames) else int(torch.randint(len(self.kept_frames), (), generator=rng))
            self.kept_frames[row] = ((picture.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
            self.kept_latents[row] = code
            self.num_kept.fill_(min(num + 1, len(self.kept_frames)))

    def remembered(self, num: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Frames and latents of `num` random fakes from the buffer, or of as many as it holds."""
        rows = torch.randint(max(int(self.num_kept), 1), (min(num, int(self.num_kept)),), generator=rng)
        return self.kept_frames[rows].float() / 127.5 - 1, self.kept_latents[rows]


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Least-squares loss with the target 1 for outputs on real frames and -1 for outputs on decoded ones."""
    return (real - 1).square().mean() + (fake + 1).square().mean()


def correction(
    discriminator: PatchDiscriminator,
    fake: Float[Tensor, "b c h w"],
    real: Float[Tensor, "b c h w"],
    latent: Float[Tensor, "b d _h _w"],
) -> Float[Tensor, "b c h w"]:
    """Direction towards equal outputs for decoded frames and the true ones of the same moment; standard deviation 1."""
    fake = fake.detach().requires_grad_()
    with torch.enable_grad():
        distance = (discriminator(fake, latent) - discriminator(real, latent).detach()).square().mean()
        (gradient,) = torch.autograd.grad(distance, fake)
    return -gradient / (gradient.std() + 1e-12)

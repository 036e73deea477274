"""A patch discriminator of short videos, and the targets that it gives a decoder.

After Seraena (Ollin Boer Bohan): it sees three successive frames beside the latent that they were decoded of, and says
at several depths how real each patch is. A decoder does not minimise its verdict, but moves towards a corrected target:
what was decoded, less the direction in which the verdicts on it and on the truth grow apart, scaled to one deviation.
Verdicts on the same moment of the same scene are compared, so that there is no use in inventing another scene.

    verdict(real) -> 1, verdict(fake) -> -1        (least squares, Mao et al. 2017)
    correction = -grad_fake | verdict(fake) - verdict(real) |^2, divided by its own standard deviation
"""

from itertools import pairwise

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

FRAMES = 3  # successive ones, which it sees together
REDUCTION = 8  # of the verdicts, against the pictures


class PatchDiscriminator(nn.Module):
    """See the top of the file. It also keeps some of the fakes it saw, so that it does not forget them."""

    def __init__(self, latent_channels: int, widths: tuple[int, ...], kept: int, patch: int, stride: int) -> None:
        """Args:
        latent_channels: of the latents it sees.
        widths: of its convolutions; all but the first and the last halve the grid.
        kept: fakes that are kept.
        patch: pixels of the side of what it sees.
        stride: pixels of the side of a latent cell.
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
        """Verdicts on patches, the mean over depths.

        Args:
            frames: three successive ones side by side in their channels, pixels in [-1, 1].
            latent: that they were decoded of.
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
        """Keep fakes, in place of random ones once there is no room."""
        for picture, code in zip(frames, latent, strict=True):
            num = int(self.num_kept)
            row = num if num < len(self.kept_frames) else int(torch.randint(len(self.kept_frames), (), generator=rng))
            self.kept_frames[row] = ((picture.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
            self.kept_latents[row] = code
            self.num_kept.fill_(min(num + 1, len(self.kept_frames)))

    def remembered(self, num: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Some of the fakes that were kept, frames and latents; fewer where there are fewer."""
        rows = torch.randint(max(int(self.num_kept), 1), (min(num, int(self.num_kept)),), generator=rng)
        return self.kept_frames[rows].float() / 127.5 - 1, self.kept_latents[rows]


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Least squares: verdicts on what is real are to be 1, on what is decoded -1."""
    return (real - 1).square().mean() + (fake + 1).square().mean()


def correction(
    discriminator: PatchDiscriminator,
    fake: Float[Tensor, "b c h w"],
    real: Float[Tensor, "b c h w"],
    latent: Float[Tensor, "b d _h _w"],
) -> Float[Tensor, "b c h w"]:
    """The direction in which decoded frames become more like the true ones of the same moment; deviation 1."""
    fake = fake.detach().requires_grad_()
    with torch.enable_grad():
        distance = (discriminator(fake, latent) - discriminator(real, latent).detach()).square().mean()
        (gradient,) = torch.autograd.grad(distance, fake)
    return -gradient / (gradient.std() + 1e-12)

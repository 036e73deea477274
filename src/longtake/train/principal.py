"""Principal components of blocks of pixels, which are the coarse codec's encoder.

    latent = scale * V^T (block - mean)        V: leading eigenvectors of the blocks' covariance, eigenvalues l
    scale_i = c * l_i ** (-whitening / 2)      c: such that the latents' mean square is 1

With `whitening` 1, all channels have unit variance, and the fine structure of a picture is as loud as its light and
shade; with 0, channels keep the spectrum of pictures, and few-step sampling reaches the fine structure only at noise
levels that it skips.
"""

from collections.abc import Iterable

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from longtake.core.shapes import Video
from longtake.nets.coarse_codec import CoarseCodec, blocks_of


@torch.no_grad()
def fit_encoder(
    codec: CoarseCodec,
    clips: Iterable[tuple[Video, Float[Tensor, "b 1 frames height width"]]],
    *,
    subject_weight: float,
    whitening: float,
) -> None:
    """Set the weights of a codec's encoder to the principal components of blocks of clips.

    Args:
        codec: codec whose encoder is set; its other weights remain.
        clips: pixels in [-1, 1] of whole latent frames, and the share of each pixel that subjects cover.
        subject_weight: weight of blocks that subjects cover whole, relative to others.
        whitening: exponent in [0, 1], see the module's docstring.
    """
    stride, channels = codec.config.stride, codec.config.latent_channels
    size = 3 * stride.time * stride.space**2
    total, mean, square = 0.0, torch.zeros(size, dtype=torch.float64), torch.zeros(size, size)
    for video, cover in clips:
        blocks = rearrange(blocks_of(video, stride), "n c h w -> (n h w) c").cpu()
        sides = {"k": stride.time, "p": stride.space, "q": stride.space}
        covered = reduce(cover, "b 1 (f k) (h p) (w q) -> (b f h w)", "mean", **sides).cpu()
        weighted = blocks * (1 + (subject_weight - 1) * covered)[:, None]
        total += float((1 + (subject_weight - 1) * covered).sum())
        mean += weighted.sum(0)
        square.addmm_(weighted.mT, blocks)
    mean /= total
    start = torch.randn(size, channels, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values, vectors = torch.lobpcg(square / total - mean[:, None] * mean, X=start, niter=50)
    values = values.clamp(min=1e-9)
    scale = values ** (-whitening / 2)
    scale /= (values * scale.square()).mean().sqrt()
    components = (vectors * scale).mT
    weight, bias = codec.encoder.weight, codec.encoder.bias
    assert bias is not None
    weight.copy_(components[..., None, None])
    bias.copy_(-components @ mean)

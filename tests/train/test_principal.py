"""The coarse codec's encoder: principal components of blocks of pixels."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from einops import einsum, rearrange
from torch import Tensor

from longtake.core.configs import CoarseCodecConfig
from longtake.nets.coarse_codec import CoarseCodec
from longtake.nets.light_codec import CodecState
from longtake.train.principal import fit_encoder

CONFIG = CoarseCodecConfig(
    latent_channels=4, width=16, decoder_blocks=1, middle_width=8, middle_blocks=1, leave_width=8
)
DEVIATIONS = torch.tensor([8.0, 4.0, 2.0, 1.0])  # of the four patterns that the clips are made of


def clips_of(amounts: Tensor) -> Tensor:
    """Clips of 4 frames whose 2x3 blocks are sums of four orthogonal patterns; amounts [n, 4, 2, 3]."""
    rng = torch.Generator().manual_seed(0)
    patterns, _ = torch.linalg.qr(torch.randn(3 * 4 * 16 * 16, 4, generator=rng))
    blocks = einsum(patterns, amounts, "size i, n i h w -> n size h w")
    return rearrange(blocks, "n (c k p q) h w -> n c k (h p) (w q)", c=3, k=4, p=16)


def drawn(num: int = 300) -> Tensor:
    rng = torch.Generator().manual_seed(1)
    return 0.5 + DEVIATIONS[:, None, None] * torch.randn(num, 4, 2, 3, generator=rng)


@cache
def fitted(whitening: float) -> tuple[CoarseCodec, Tensor]:
    """A codec, and the latents [n, 4] of the blocks that its encoder was computed from."""
    codec, clips = CoarseCodec(CONFIG), clips_of(drawn())
    fit_encoder(codec, [(clips, torch.zeros(300, 1, 4, 32, 48))], subject_weight=3.0, whitening=whitening)
    with torch.no_grad():
        latents, _ = codec.encode(clips, CodecState(started=True))
    return codec, rearrange(latents, "n c 1 h w -> (n h w) c")


@pytest.mark.parametrize(
    ("whitening", "wanted"), [(1.0, [1, 1, 1, 1]), (0.5, [8**0.5, 2, 2**0.5, 1]), (0.0, [8, 4, 2, 1])]
)
def test_channels_have_the_spectrum_that_whitening_leaves(whitening: float, wanted: list[float]) -> None:
    _, latents = fitted(whitening)
    assert latents.mean(0).abs().max() < 1e-3
    assert float(latents.square().mean()) == pytest.approx(1, abs=0.01)
    deviations = latents.std(0)
    assert torch.allclose(deviations / deviations[-1], torch.tensor(wanted, dtype=torch.float), rtol=0.1)
    assert torch.corrcoef(latents.T).sub(torch.eye(4)).abs().max() < 0.02


def test_nothing_is_lost_of_clips_that_have_no_more_components_than_channels() -> None:
    codec, latents = fitted(0.5)
    weight, bias = codec.encoder.weight[..., 0, 0], codec.encoder.bias
    assert bias is not None
    blocks = (latents - bias) @ torch.linalg.pinv(weight).mT
    again = rearrange(blocks, "(n h w) (c k p q) -> n c k (h p) (w q)", n=300, h=2, c=3, k=4, p=16)
    assert (again - clips_of(drawn())).abs().max() < 1e-3


def test_what_subjects_cover_counts_more() -> None:
    """The one channel for two patterns of equal strength goes to the pattern that subjects have."""
    amounts = torch.zeros(400, 4, 2, 3)
    amounts[:200, 0], amounts[200:, 1] = 2 * torch.randn(2, 200, 2, 3, generator=torch.Generator().manual_seed(2))
    clips, second = clips_of(amounts), torch.arange(400) >= 200
    for covered in (second, ~second):
        codec = CoarseCodec(replace(CONFIG, latent_channels=1))
        cover = covered.float().view(-1, 1, 1, 1, 1).expand(-1, 1, 4, 32, 48)
        fit_encoder(codec, [(clips, cover)], subject_weight=3.0, whitening=0.5)
        with torch.no_grad():
            latents, _ = codec.encode(clips, CodecState(started=True))
        assert latents[covered].std() > 10 * latents[~covered].std()

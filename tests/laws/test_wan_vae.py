"""The Wan autoencoder: in pieces as at once, names and sizes as published."""

from itertools import pairwise

import pytest
import torch

from longtake.core.configs import WanVAEConfig
from longtake.core.errors import ShapeError
from longtake.nets.light_codec import CodecState
from longtake.nets.wan_vae import WanVAE
from tests.tiny import shake

TINY = WanVAEConfig(
    latent_channels=4, base_dim=4, dim_mult=(1, 2, 2, 2), num_res_blocks=1, mean=(0.1,) * 4, std=(1.5,) * 4
)
FRAMES = 17


def vae(dtype: torch.dtype) -> WanVAE:
    torch.manual_seed(0)
    net = WanVAE(TINY).to(dtype)
    shake(net)
    return net


def video(dtype: torch.dtype) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return 2 * torch.rand(2, 3, FRAMES, 16, 24, generator=rng, dtype=dtype) - 1


@pytest.mark.parametrize("splits", [(1,) * 5, (3, 2), (1, 4), (2, 1, 2)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@torch.no_grad()
def test_decoding_in_pieces_equals_at_once(splits: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    net = vae(dtype)
    latent, _ = net.encode(video(dtype), CodecState())
    whole, _ = net.decode(latent, CodecState())
    assert latent.shape == (2, 4, 5, 2, 3)
    assert whole.shape == (2, 3, FRAMES, 16, 24)
    state, pieces = CodecState(), []
    for piece in latent.split(splits, 2):
        frames, state = net.decode(piece, state)
        pieces.append(frames)
    assert (torch.cat(pieces, 2) - whole).abs().max() < tolerance


@pytest.mark.parametrize("splits", [(1, 4, 4, 4, 4), (9, 8), (1, 16), (5, 12)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@torch.no_grad()
def test_encoding_in_pieces_equals_at_once(splits: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    net = vae(dtype)
    whole, _ = net.encode(video(dtype), CodecState())
    state, pieces = CodecState(), []
    for piece in video(dtype).split(splits, 2):
        latent, state = net.encode(piece, state)
        pieces.append(latent)
    assert (torch.cat(pieces, 2) - whole).abs().max() < tolerance


@torch.no_grad()
def test_control_forgetting_the_state_is_seen() -> None:
    net = vae(torch.float64)
    latent, _ = net.encode(video(torch.float64), CodecState())
    whole, _ = net.decode(latent, CodecState())
    _, state = net.decode(latent[:, :, :3], CodecState())
    rest, _ = net.decode(latent[:, :, 3:], state)
    empty = CodecState(tuple(t[:, :, :0] for t in state.frames), True)
    forgetful, _ = net.decode(latent[:, :, 3:], empty)
    assert torch.allclose(rest, whole[:, :, 9:], atol=1e-12)
    assert (forgetful - rest).abs().max() > 1e-3


@torch.no_grad()
def test_the_first_latent_frame_is_not_in_the_history_of_time() -> None:
    """Frames 1 to 4 come from the second latent frame through zeros in time, not through the first."""
    net = vae(torch.float64)
    latent = torch.randn(1, 4, 2, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, state = net.decode(latent[:, :, :1], CodecState())
    lengths = [t.shape[2] for t in state.frames]
    assert lengths.count(0) == sum(TINY.temporal_downsample)
    assert set(lengths) == {0, 1}
    _, state = net.decode(latent[:, :, 1:], state)
    assert {t.shape[2] for t in state.frames} <= {1, 2}


def test_the_published_size_has_the_published_names_and_parameters() -> None:
    with torch.device("meta"):
        net = WanVAE(WanVAEConfig())
    tensors = net.state_dict()
    assert len(tensors) == 194
    assert sum(t.numel() for t in tensors.values()) == 126_892_531
    assert tuple(tensors["decoder.upsamples.3.time_conv.weight"].shape) == (768, 384, 3, 1, 1)
    assert tuple(tensors["encoder.downsamples.5.time_conv.weight"].shape) == (192, 192, 3, 1, 1)
    assert tuple(tensors["decoder.middle.1.to_qkv.weight"].shape) == (1152, 384, 1, 1)
    assert tuple(tensors["decoder.head.0.gamma"].shape) == (96, 1, 1, 1)
    assert net.config.stride.time == 4
    assert net.config.stride.space == 8


@torch.no_grad()
def test_lengths_and_sizes_that_cannot_be_are_refused() -> None:
    net = vae(torch.float32)
    clip = video(torch.float32)
    for bad in (clip[:, :, :16], clip[:, :, :, :15], clip[:, :, :1, :, :20]):
        with pytest.raises(ShapeError):
            net.encode(bad, CodecState())
    _, state = net.encode(clip[:, :, :1], CodecState())
    with pytest.raises(ShapeError, match="multiple of 4"):
        net.encode(clip[:, :, 1:4], state)
    with pytest.raises(ShapeError, match="channels"):
        net.decode(torch.zeros(1, 5, 1, 2, 3), CodecState())


def test_batches_are_independent() -> None:
    net = vae(torch.float64)
    clip = video(torch.float64)
    with torch.no_grad():
        both, _ = net.encode(clip, CodecState())
        for row, _next in pairwise(range(3)):
            alone, _ = net.encode(clip[row : row + 1], CodecState())
            assert torch.allclose(alone, both[row : row + 1], atol=1e-12)

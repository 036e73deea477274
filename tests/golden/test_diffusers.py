"""Ours against diffusers, on random weights: the transformer, causal and not, and the video autoencoder."""

import pytest
import torch

from longtake.core.configs import WanVAEConfig
from longtake.nets.light_codec import CodecState
from longtake.nets.wan_vae import WanVAE
from longtake.weights.wan.names import diffusers_name, vae_tensors, wan_tensors
from tests.tiny import DIT, random_dit, shake

pytestmark = pytest.mark.golden
diffusers = pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def transformers():
    ours = random_dit(dtype=torch.float32)
    theirs = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=DIT.num_heads,
        attention_head_dim=DIT.head_dim,
        in_channels=DIT.in_dim,
        out_channels=DIT.in_dim,
        text_dim=DIT.text_dim,
        freq_dim=DIT.freq_dim,
        ffn_dim=DIT.ffn_dim,
        num_layers=DIT.num_layers,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        eps=DIT.eps,
    )
    theirs.load_state_dict({diffusers_name(name): t for name, t in ours.state_dict().items()})
    return ours, theirs.eval()


@pytest.mark.parametrize(("timestep", "tolerance"), [(0.0, 1e-5), (37.5, 1e-4), (500.0, 1e-4), (1000.0, 1e-4)])
@torch.no_grad()
def test_the_transformer_says_the_same(transformers, timestep: float, tolerance: float) -> None:
    ours, theirs = transformers
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, DIT.in_dim, 6, 8, 12, generator=rng)
    text = torch.randn(2, DIT.text_len, DIT.text_dim, generator=rng)
    mine = ours(x, torch.full((2, 6), timestep / 1000), text[:, None])
    other = theirs(x, torch.full((2,), timestep), text, return_dict=False)[0]
    assert (mine - other).abs().max() < tolerance
    assert other.std() > 0.3


def test_names_go_there_and_back(transformers) -> None:
    ours, theirs = transformers
    back = wan_tensors(theirs.state_dict())
    assert back.keys() == ours.state_dict().keys()
    for name, tensor in ours.state_dict().items():
        assert torch.equal(back[name], tensor)


@torch.no_grad()
def test_the_autoencoder_says_the_same() -> None:
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    torch.manual_seed(0)
    ours = WanVAE(WanVAEConfig(base_dim=4, mean=(0.0,) * 16, std=(1.0,) * 16))
    shake(ours)
    theirs = diffusers.AutoencoderKLWan(base_dim=4).eval()
    theirs.load_state_dict(convert_wan_vae_to_diffusers(dict(ours.state_dict())))
    back = vae_tensors(theirs.state_dict())
    assert back.keys() == ours.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in ours.state_dict().items())
    video = 2 * torch.rand(1, 3, 17, 32, 48, generator=torch.Generator().manual_seed(0)) - 1
    latent, _ = ours.encode(video, CodecState())
    expected = theirs.encode(video).latent_dist.mean
    assert (latent - expected).abs().max() < 1e-5 * max(1.0, float(expected.abs().max()))
    decoded, _ = ours.decode(latent, CodecState())
    other = theirs.decode(latent).sample
    assert decoded.shape == other.shape == video.shape
    assert (decoded - other).abs().max() < 1e-4
    assert other.std() > 0.05

"""Half precision where it is used: attention in training on a CPU, and networks whose latents stay in fp32."""

import torch

from longtake.nets.attention import attention
from longtake.nets.light_codec import CodecState
from tests.tiny import random_codec, random_dit, two_chunks


def test_attention_in_training_is_the_same_attention() -> None:
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, n, 3, 16, generator=rng, requires_grad=True) for n in (12, 20, 20))
    exact = attention(q, k, v)
    exact.square().sum().backward()
    gradients = [x.grad.clone() for x in (q, k, v) if x.grad is not None]
    for x in (q, k, v):
        x.grad = None
    with torch.autocast("cpu", torch.bfloat16):
        half = attention(q, k, v)
    half.float().square().sum().backward()
    assert half.dtype is torch.bfloat16
    assert (half - exact).abs().max() < 0.02 * exact.abs().max()
    for x, gradient in zip((q, k, v), gradients, strict=True):
        assert x.grad is not None
        assert (x.grad - gradient).norm() < 0.02 * gradient.norm()


@torch.inference_mode()
def test_a_network_in_half_precision_says_nearly_the_same() -> None:
    exact, _ = two_chunks(random_dit(dtype=torch.float32))
    half, cache = two_chunks(random_dit(dtype=torch.float32).bfloat16())
    assert cache.blocks[0].k.dtype is torch.bfloat16
    assert half.dtype is torch.float32
    assert 0 < (half - exact).norm() < 0.03 * exact.norm()


@torch.inference_mode()
def test_a_codec_in_half_precision_takes_and_gives_fp32() -> None:
    exact, half = random_codec(dtype=torch.float32), random_codec(dtype=torch.float32).bfloat16()
    video = torch.rand(1, 3, 9, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latent, _ = half.encode(video, CodecState())
    shown, _ = half.decode(latent, CodecState())
    assert latent.dtype is shown.dtype is torch.float32
    assert (latent - exact.encode(video, CodecState())[0]).abs().max() < 0.05

"""The network is Wan's: names, shapes, sizes, and the meaning of each part. No weights are needed for that."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from longtake.core.configs import DiTConfig
from longtake.core.errors import ConfigError, ShapeError
from longtake.nets.blocks import TransformerBlock
from longtake.nets.dit import DiT
from longtake.nets.kv_cache import KVCache
from tests.tiny import DIT, random_dit

WAN_1_3B = DiTConfig(dim=1536, num_layers=30, num_heads=12, ffn_dim=8960, text_dim=4096, text_len=512)
FRAMES, HEIGHT, WIDTH = 3, 4, 6


def wan_names(dim: int, ffn: int, text: int, layers: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published checkpoint."""
    names: dict[str, tuple[int, ...]] = {
        "patch_embedding.weight": (dim, 16, 1, 2, 2),
        "patch_embedding.bias": (dim,),
        "text_embedding.0.weight": (dim, text),
        "text_embedding.0.bias": (dim,),
        "text_embedding.2.weight": (dim, dim),
        "text_embedding.2.bias": (dim,),
        "time_embedding.0.weight": (dim, 256),
        "time_embedding.0.bias": (dim,),
        "time_embedding.2.weight": (dim, dim),
        "time_embedding.2.bias": (dim,),
        "time_projection.1.weight": (6 * dim, dim),
        "time_projection.1.bias": (6 * dim,),
        "head.modulation": (1, 2, dim),
        "head.head.weight": (64, dim),
        "head.head.bias": (64,),
    }
    for layer in range(layers):
        block = f"blocks.{layer}"
        names[f"{block}.modulation"] = (1, 6, dim)
        names[f"{block}.norm3.weight"] = names[f"{block}.norm3.bias"] = (dim,)
        for kind in ("self_attn", "cross_attn"):
            for part in "qkvo":
                names[f"{block}.{kind}.{part}.weight"] = (dim, dim)
                names[f"{block}.{kind}.{part}.bias"] = (dim,)
            names[f"{block}.{kind}.norm_q.weight"] = names[f"{block}.{kind}.norm_k.weight"] = (dim,)
        names[f"{block}.ffn.0.weight"], names[f"{block}.ffn.0.bias"] = (ffn, dim), (ffn,)
        names[f"{block}.ffn.2.weight"], names[f"{block}.ffn.2.bias"] = (dim, ffn), (dim,)
    return names


def inputs(batch: int = 1, groups: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(batch, DIT.in_dim, FRAMES, HEIGHT, WIDTH, generator=rng, dtype=torch.float64)
    sigma = torch.rand(batch, FRAMES, generator=rng, dtype=torch.float64)
    text = torch.randn(batch, groups, DIT.text_len, DIT.text_dim, generator=rng, dtype=torch.float64)
    return x, sigma, text


def first_block(dit: DiT) -> TransformerBlock:
    block = dit.blocks[0]
    assert isinstance(block, TransformerBlock)
    return block


def test_the_1_3b_config_has_wans_names_and_shapes() -> None:
    with torch.device("meta"):
        dit = DiT(WAN_1_3B)
    ours = {name: tuple(tensor.shape) for name, tensor in dit.state_dict().items()}
    assert ours == wan_names(1536, 8960, 4096, 30)
    assert len(ours) == 825
    assert sum(math.prod(shape) for shape in ours.values()) == 1_418_996_800
    assert sum(p.numel() for p in dit.blocks[0].parameters()) == 46_440_704


def test_every_tensor_of_the_state_is_a_parameter() -> None:
    dit = random_dit()
    assert dit.state_dict().keys() == dict(dit.named_parameters()).keys()


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, DIT.in_dim + 1, 3, 4, 6), (1, DIT.in_dim, 3, 5, 6), (1, DIT.in_dim, 3, 4, 7)])
def test_latents_of_the_wrong_shape_are_told(shape: tuple[int, ...]) -> None:
    _, _, text = inputs()
    with pytest.raises(ShapeError, match=r"latents must be \[b, 4, f, h, w\] with h and w divisible by 2, got") as told:
        random_dit()(torch.zeros(shape, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64), text)
    assert str(list(shape)) in str(told.value)


@torch.no_grad()
@pytest.mark.parametrize(("batch", "groups"), [(1, 2), (2, 1), (3, 1)])
def test_texts_that_do_not_fit_the_latents_are_told(batch: int, groups: int) -> None:
    x, sigma, _ = inputs()
    text = torch.zeros(batch, groups, DIT.text_len, DIT.text_dim, dtype=torch.float64)
    dit = random_dit()
    with pytest.raises(ShapeError, match="text"):
        dit.forward_cached(x, dit.modulation(sigma), dit.project_text(text), dit.rotated_context(KVCache(), x.shape))


@pytest.mark.parametrize("num_heads", [5, 48])
def test_heads_that_do_not_fit_are_refused(num_heads: int) -> None:
    with pytest.raises(ConfigError, match="even width"):
        DiTConfig(dim=48, num_layers=1, num_heads=num_heads, ffn_dim=8, text_dim=8, text_len=4)


@torch.no_grad()
@pytest.mark.parametrize(("frames", "height", "width"), [(1, 2, 2), (2, 6, 4), (7, 2, 10)])
def test_any_length_and_any_even_size_runs(frames: int, height: int, width: int) -> None:
    x = torch.randn(2, DIT.in_dim, frames, height, width, dtype=torch.float64)
    text = torch.randn(2, 1, DIT.text_len, DIT.text_dim, dtype=torch.float64)
    out = random_dit()(x, torch.ones(2, 1, dtype=torch.float64), text)
    assert out.shape == x.shape
    assert out.isfinite().all()


@torch.no_grad()
def test_a_fresh_network_says_zero() -> None:
    torch.manual_seed(0)
    x, sigma, text = (t.float() for t in inputs())
    assert torch.equal(DiT(DIT)(x, sigma, text), torch.zeros_like(x))


@torch.no_grad()
def test_one_noise_level_for_all_frames_equals_the_same_level_for_each() -> None:
    x, _, text = inputs()
    dit, sigma = random_dit(), torch.full((1, 1), 0.7, dtype=torch.float64)
    assert (dit(x, sigma, text) - dit(x, sigma.expand(-1, FRAMES), text)).abs().max() < 1e-12


@torch.no_grad()
def test_each_frame_has_its_own_noise_level() -> None:
    """Attention aside, the level of a frame acts on that frame alone: swapping levels is not a no-op."""
    x, sigma, text = inputs()
    dit = random_dit()
    assert (dit(x, sigma, text) - dit(x, sigma.flip(1), text)).abs().max() > 1e-3


@torch.no_grad()
def test_the_clock_is_wans_sinusoid_of_a_thousand_sigma() -> None:
    """cos first, then sin, of timestep * 10000^(-i / half)."""
    dit, half = random_dit(), DIT.freq_dim // 2
    sigma = torch.tensor([[0.25, 0.8333]], dtype=torch.float64)
    waves = torch.zeros(1, 2, DIT.freq_dim, dtype=torch.float64)
    for frame in range(2):
        for i in range(half):
            angle = 1000 * float(sigma[0, frame]) * 10_000 ** (-i / half)
            waves[0, frame, i], waves[0, frame, half + i] = math.cos(angle), math.sin(angle)
    time = dit.time_embedding(waves)
    modulation = dit.modulation(sigma)
    assert (modulation.head - time).abs().max() < 1e-12
    assert (modulation.blocks.flatten(2) - dit.time_projection(time)).abs().max() < 1e-12


@torch.no_grad()
def test_a_patch_is_embedded_as_its_convolution_says() -> None:
    dit = random_dit()
    x, _, _ = inputs()
    assert (
        dit._patchify(x, dit.patch_embedding) - dit.patch_embedding(x).flatten(2).transpose(1, 2)
    ).abs().max() < 1e-12


@torch.no_grad()
def test_a_network_of_idle_blocks_is_its_head_on_its_patches() -> None:
    """Shift before scale, the head on the unprojected time; channels fastest inside a patch."""
    dit, config = random_dit(), DIT
    for name, p in dit.blocks.named_parameters():
        if "attn.o." in name or "ffn.2." in name:
            p.zero_()
    x, sigma, text = inputs()
    tokens = dit.patch_embedding(x).flatten(2).transpose(1, 2)
    time = dit.modulation(sigma).head.repeat_interleave(6, 1)  # a 4x6 latent frame has 2x3 tokens
    shift, scale = dit.head.modulation[:, :1] + time, dit.head.modulation[:, 1:] + time
    patches = dit.head.head(functional.layer_norm(tokens, (48,), eps=config.eps) * (1 + scale) + shift)
    expected = torch.zeros_like(x)
    for token, patch in enumerate(patches[0]):
        frame, row, column = token // 6, token % 6 // 3 * 2, token % 3 * 2
        for p in range(2):
            for q in range(2):
                expected[0, :, frame, row + p, column + q] = patch.view(2, 2, 4)[p, q]
    assert (dit(x, sigma, text) - expected).abs().max() < 1e-12


@torch.no_grad()
def test_the_six_modulations_are_shift_scale_gate_of_attention_then_of_the_feed_forward() -> None:
    """Gates at zero switch their branch off, and nothing else does."""
    dit = random_dit()
    x, sigma, text = inputs()
    block = first_block(dit)
    table = dit.modulation(sigma).blocks

    def run(zeroed: tuple[int, ...]) -> Tensor:
        modulation = table.clone()
        for i in zeroed:
            modulation[:, :, i] = -block.modulation[:, i]
        rope = dit._rope(torch.arange(FRAMES), x)
        memory = dit.project_text(text)
        tokens = dit._patchify(x, dit.patch_embedding)
        return block(tokens, modulation, rope, (memory.k[0], memory.v[0], None), 0, lambda _, q, k, v: 0 * q + k + v)[0]

    tokens = dit._patchify(x, dit.patch_embedding)
    memory = dit.project_text(text)
    text_alone = tokens + block._read_text(block.norm3(tokens), memory.k[0], memory.v[0], None)
    assert (run((2, 5)) - text_alone).abs().max() < 1e-12
    for i in range(6):
        assert (run((i,)) - run(())).abs().max() > 1e-6
    assert (run((2, 0)) - run((2,))).abs().max() < 1e-12  # a closed gate hides its shift
    assert (run((5, 3, 4)) - run((5,))).abs().max() < 1e-12


@torch.no_grad()
def test_keys_are_normed_over_all_heads_at_once() -> None:
    attention = first_block(random_dit()).self_attn
    x = torch.randn(1, 5, DIT.dim, dtype=torch.float64)
    k, v = attention.keys_values(x)
    raw = attention.k(x)
    expected = raw / (raw.square().mean(-1, keepdim=True) + DIT.eps).sqrt() * attention.norm_k.weight
    assert (k.flatten(2) - expected).abs().max() < 1e-5
    assert torch.equal(v.flatten(2), attention.v(x))


@torch.no_grad()
def test_each_text_reaches_its_own_frames_first() -> None:
    """With one layer, no self-attention between groups: another text for frame 2 leaves frames 0 and 1 alone."""
    config = DiTConfig(dim=48, num_layers=1, num_heads=2, ffn_dim=64, text_dim=384, text_len=16, in_dim=4, freq_dim=32)
    dit = random_dit(config)
    x, sigma, text = inputs(groups=3)
    other = text.clone()
    other[:, 2] += 1
    moved = (dit(x, sigma, text) - dit(x, sigma, other)).abs().amax((0, 1, 3, 4))
    assert moved[:2].max() < 1e-12
    assert moved[2] > 1e-6


@torch.no_grad()
def test_rows_beyond_the_prompt_are_read_too() -> None:
    """Wan attends to the zero rows, without a mask: their number matters."""
    x, sigma, text = inputs()
    dit = random_dit()
    shorter, longer = text.clone(), functional.pad(text, (0, 0, 0, 8))
    assert (dit(x, sigma, shorter) - dit(x, sigma, longer)).abs().max() > 1e-4


@torch.no_grad()
def test_all_tokens_kept_in_any_order_are_the_whole_forward() -> None:
    config = replace(DIT, grid=(2, 3), pooled_text=True)
    dit = random_dit(config)
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, DIT.in_dim, 3, 4, 6, generator=rng, dtype=torch.float64)
    sigma = torch.rand(2, 3, generator=rng, dtype=torch.float64)
    text = torch.randn(2, 1, DIT.text_len, DIT.text_dim, generator=rng, dtype=torch.float64)
    kept = torch.stack([torch.stack([torch.randperm(6, generator=rng) for _ in range(3)]) for _ in range(2)])
    whole = dit.patches(dit(x, sigma, text))
    found = dit.forward_sparse(x, sigma, text, kept)
    wanted = whole.gather(2, kept[..., None].expand(-1, -1, -1, whole.shape[3]))
    assert (found - wanted).abs().max() < 1e-12
    few = dit.forward_sparse(x, sigma, text, kept[:, :, :4])
    assert few.shape == (2, 3, 4, DIT.in_dim * 4)
    assert (few - wanted[:, :, :4]).abs().max() > 1e-3  # the others are not there to be looked at


def test_blocks_that_come_in_later_change_nothing_at_first_and_then_learn() -> None:
    config = replace(DIT, num_layers=4)
    dit = random_dit(config)
    given = inputs()
    whole = dit(*given)
    dit.start_shallow(2)
    shallow = dit(*given)
    assert not torch.allclose(shallow, whole)
    for block in (1, 3):  # those between do not take part
        for p in dit.blocks[block].parameters():
            assert torch.autograd.grad(dit(*given).sum(), p, allow_unused=True) == (None,)
    dit.depth = 4
    assert torch.allclose(dit(*given), shallow, rtol=0, atol=1e-12)
    for block in (1, 3):
        last = dit.get_parameter(f"blocks.{block}.ffn.2.weight")
        (grad,) = torch.autograd.grad(dit(*given).square().sum(), last)
        assert grad.abs().max() > 0


@pytest.mark.parametrize(("used", "kept"), [(0, 16), (5, 16), (15, 16), (16, 32), (39, 40), (40, 40)])
def test_one_row_stands_for_the_rows_after_a_prompt(used: int, kept: int) -> None:
    dit = random_dit(replace(DIT, text_len=40, pooled_text=True))
    x, sigma, _ = inputs()
    text = torch.zeros(1, 1, 40, DIT.text_dim, dtype=torch.float64)
    text[:, :, :used] = torch.randn(used, DIT.text_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    past = dit.rotated_context(KVCache(), x.shape)
    level = dit.modulation(sigma[:, :1])
    whole, merged = dit.project_text(text), dit.project_text(text, merge_padding=True)
    assert merged.k[0].shape[1] == kept
    a, b = (dit.forward_cached(x, level, memory, past) for memory in (whole, merged))
    assert (a - b).abs().max() < 1e-12
    forgotten = replace(merged, padding=1)
    assert (dit.forward_cached(x, level, forgotten, past) - a).abs().max() > 1e-4 or merged.padding == 1 or not used

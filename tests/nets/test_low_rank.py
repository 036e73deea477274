"""Corrections of low rank: nothing at the start, part of the weights in the end."""

import pytest
import torch
from torch import Tensor

from longtake.core.errors import ConfigError
from longtake.nets.dit import DiT
from longtake.nets.low_rank import LowRankLinear, adapters, add_low_rank, corrected, merged
from tests.tiny import DIT, random_dit

RANK = 3


def called(dit: DiT) -> Tensor:
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(2, DIT.in_dim, 3, 4, 6, generator=rng, dtype=torch.float64)
    text = torch.randn(2, 1, 5, DIT.text_dim, generator=rng, dtype=torch.float64)
    return dit(x, torch.full((2, 3), 0.6, dtype=torch.float64), text)


def with_corrections(*, shaken: bool) -> DiT:
    dit = add_low_rank(random_dit(), RANK).double()
    if shaken:
        for name, p in dit.named_parameters():
            if "lora_up" in name:
                torch.nn.init.normal_(p, std=0.1)
    return dit


def test_it_begins_as_the_network_it_corrects() -> None:
    assert torch.equal(called(with_corrections(shaken=False)), called(random_dit()))


def test_merged_weights_say_the_same_without_corrections() -> None:
    dit, plain = with_corrections(shaken=True), random_dit()
    assert not torch.allclose(called(dit), called(plain), atol=1e-3)
    plain.load_state_dict(merged(dit.state_dict()))
    torch.testing.assert_close(called(plain), called(dit), rtol=0, atol=1e-12)


def test_only_corrections_learn_and_every_linear_layer_of_a_block_has_one() -> None:
    dit = with_corrections(shaken=True)
    called(dit).square().sum().backward()
    learned = {name for name, p in dit.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert learned == {name for name, _ in dit.named_parameters() if "lora_" in name}
    assert sum(isinstance(module, LowRankLinear) for module in dit.modules()) == 10 * DIT.num_layers


def test_corrections_are_named_as_others_read_them() -> None:
    found = adapters(with_corrections(shaken=True).state_dict())
    assert found["diffusion_model.blocks.0.self_attn.q.lora_A.weight"].shape == (RANK, DIT.dim)
    assert found["diffusion_model.blocks.1.ffn.0.lora_B.weight"].shape == (DIT.ffn_dim, RANK)
    assert adapters(random_dit().state_dict()) == {}


def test_corrections_and_the_sources_embedding_travel_alone_and_are_added_again() -> None:
    dit = with_corrections(shaken=True)
    dit.add_source()
    assert dit.source_embedding is not None
    torch.nn.init.normal_(dit.source_embedding.weight)
    travelled = corrected(random_dit().state_dict(), adapters(dit.state_dict()))
    assert travelled.keys() == random_dit().state_dict().keys() | {"source_embedding.weight", "source_embedding.bias"}
    for name, tensor in merged(dit.state_dict()).items():
        torch.testing.assert_close(travelled[name], tensor.float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rank", [0, DIT.dim + 1])
def test_a_rank_that_cannot_be_is_refused(rank: int) -> None:
    with pytest.raises(ConfigError, match="a LoRA's rank"):
        add_low_rank(random_dit(), rank)


def test_alpha_over_the_rank_scales_a_correction_in_training_and_in_its_file() -> None:
    dit, twice = with_corrections(shaken=True), add_low_rank(random_dit(), RANK, alpha=2 * RANK).double()
    twice.load_state_dict({**dit.state_dict(), **{n: t for n, t in twice.state_dict().items() if "alpha" in n}})
    plain = random_dit().state_dict()
    name = "blocks.0.self_attn.q.weight"
    once, double = merged(dit.state_dict())[name] - plain[name], merged(twice.state_dict())[name] - plain[name]
    torch.testing.assert_close(double, 2 * once, rtol=0, atol=1e-12)
    travelled = corrected(plain, adapters(twice.state_dict()))
    torch.testing.assert_close(travelled[name], merged(twice.state_dict())[name].float(), rtol=0, atol=1e-6)
    unsaid = {key: tensor for key, tensor in adapters(twice.state_dict()).items() if not key.endswith("alpha")}
    rebuilt = corrected(plain, unsaid)[name]
    torch.testing.assert_close(rebuilt, merged(dit.state_dict())[name].float(), rtol=0, atol=1e-6)
    random = random_dit()
    random.load_state_dict(merged(twice.state_dict()))
    torch.testing.assert_close(called(random), called(twice), rtol=0, atol=1e-12)

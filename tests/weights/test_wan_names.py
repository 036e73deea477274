"""Parameter names of Wan: one to one, through wrappers, and back."""

import pytest
import torch

from longtake.core.configs import DiTConfig
from longtake.core.errors import WeightsError
from longtake.nets.dit import DiT
from longtake.weights.wan.names import diffusers_name, original_name, peeled, wan_tensors

WAN_1_3B = DiTConfig(dim=1536, num_layers=30, num_heads=12, ffn_dim=8960, text_dim=4096, text_len=512)


@pytest.fixture(scope="module")
def names() -> list[str]:
    with torch.device("meta"):
        return list(DiT(WAN_1_3B).state_dict())


def test_every_name_has_one_in_diffusers_and_back(names: list[str]) -> None:
    theirs = [diffusers_name(name) for name in names]
    assert len(set(theirs)) == len(names) == 825
    assert [original_name(name) for name in theirs] == names
    assert [original_name(name) for name in names] == names


@pytest.mark.parametrize(
    "wrapped",
    [
        "model.{}",
        "generator.model.{}",
        "model._fsdp_wrapped_module.{}",
        "model.diffusion_model.{}",
        "net._orig_mod.{}",
        "{}",
    ],
)
def test_wrappers_are_peeled_off(names: list[str], wrapped: str) -> None:
    assert [peeled(wrapped.format(name)) for name in names] == names
    inside = "model._fsdp_wrapped_module.blocks.3._checkpoint_wrapped_module.self_attn.q.weight"
    assert peeled(inside) == "blocks.3.self_attn.q.weight"


def test_what_is_no_network_is_left_out_and_a_lora_refused() -> None:
    found = wan_tensors({"model.head.modulation": 1, "_cls_pred_branch.0.weight": 2, "freqs": 3})
    assert found == {"head.modulation": 1}
    with pytest.raises(WeightsError, match="LoRA"):
        wan_tensors({"diffusion_model.blocks.0.self_attn.q.lora_A.weight": 1})
    with pytest.raises(WeightsError, match="two tensors"):
        wan_tensors({"head.modulation": 1, "model.head.modulation": 2})

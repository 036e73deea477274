"""bf16 only where it pays."""

import pytest
import torch
from torch import nn

from longtake.core.bf16 import has_bf16_units
from longtake.train.loop import precision
from longtake.train.run import load_recipe

CPU = torch.device("cpu")


@pytest.mark.parametrize(("amx", "avx512"), [(False, False), (True, False), (False, True)])
def test_training_multiplies_in_bf16_where_there_are_units_for_it(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    assert has_bf16_units(CPU) is (amx or avx512)
    assert has_bf16_units(torch.device("cuda"))
    net = nn.Linear(4, 4)
    with precision(net, bf16=True):
        assert net(torch.ones(1, 4)).dtype == (torch.bfloat16 if amx or avx512 else torch.float32)
    with precision(net, bf16=False):
        assert net(torch.ones(1, 4)).dtype == torch.float32


def test_a_recipe_knows_which_of_its_stages_want_bf16() -> None:
    assert load_recipe("smoke").in_bf16 == ()
    assert load_recipe("tiny-world").in_bf16 == ("codec", "teacher", "ode_pairs", "ode_init", "dmd", "source_adapter")

"""Linear layers in 8 bits say nearly what they said in full, and take as many bytes as the plan says."""

from pathlib import Path

import pytest
import torch
from torch import nn

import longtake
from longtake.core.errors import DeviceError
from longtake.nets.float8 import Float8Linear, in_float8
from longtake.weights import plan as plans
from longtake.weights.plan import GIB, plan
from longtake.weights.wan.presets import WANS
from tests.tiny import DIT, PRESET, random_dit, two_chunks, write_model


@torch.inference_mode()
def test_a_layer_is_within_three_bits_of_itself_whatever_its_rows_are() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 48)
    x = torch.randn(2, 5, 64) * torch.logspace(-3, 3, 5)[:, None]  # a scale a token: small ones are not lost
    exact, rounded = linear(x) - linear.bias, Float8Linear(linear)(x) - linear.bias
    error = (rounded - exact).norm(dim=-1) / exact.norm(dim=-1)
    assert error.max() < 0.06  # 3 bits of mantissa on either side
    assert Float8Linear(linear)(torch.zeros(1, 64)).equal(linear.bias[None])


@torch.inference_mode()
def test_a_chunk_is_nearly_the_same() -> None:
    dit = random_dit(DIT, dtype=torch.float32)
    exact, _ = two_chunks(dit)
    in_float8(dit)
    kept = [name for name, module in dit.named_modules() if isinstance(module, nn.Linear)]
    assert sum(isinstance(module, Float8Linear) for module in dit.modules()) == 10 * DIT.num_layers
    assert all(not name.startswith("blocks") for name in kept)
    assert 0 < (two_chunks(dit)[0] - exact).norm() / exact.norm() < 0.1


def test_the_plan_counts_what_is_there() -> None:
    dit = random_dit(DIT, dtype=torch.float32)
    in_float8(dit)
    linear = [module for module in dit.modules() if isinstance(module, Float8Linear)]
    rest = sum(p.numel() for p in dit.parameters()) * 4
    made = plan(PRESET, torch.device("cpu"), 2**60, fp8=True)
    assert made.parts["network"] == rest + sum(module.weight.numel() for module in linear)
    with pytest.raises(DeviceError, match="nearest that fits is --fp8"):
        plan(WANS["wan-14b"], torch.device("cuda"), 40 * GIB)
    assert "fp8 and bfloat16" in plan(WANS["wan-14b"], torch.device("cuda"), 40 * GIB, fp8=True).told()


def test_a_take_in_8_bits_is_one_of_its_own_and_comes_again(tmp_path: Path) -> None:
    model = str(write_model(tmp_path / "model"))

    def frames(*, fp8: bool) -> tuple[str, torch.Tensor]:
        with longtake.open(model, fp8=fp8) as studio:
            chunks = list(studio.take("a tiger").stream(chunks=4))
            return studio.model.digest, torch.cat([chunk.frames for chunk in chunks])

    (full, exact), (digest, first), (_, again) = frames(fp8=False), frames(fp8=True), frames(fp8=True)
    assert digest == f"{full}-fp8"
    assert first.equal(again)
    assert not first.equal(exact)


def test_a_gpu_without_8_bits_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "device_named", lambda name: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    with pytest.raises(DeviceError, match="cuda:0 cannot multiply in 8 bits"):
        plans.plan_for(PRESET, "cuda", fp8=True)

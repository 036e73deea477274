"""Published layouts of Wan checkpoints, as files the test makes: all give the same network."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from longtake.core.errors import WeightsError
from longtake.weights.foreign import wan_checkpoint
from longtake.weights.wan.names import diffusers_name
from tests.tiny import random_dit


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return dict(random_dit(dtype=torch.float32).state_dict())


def original(folder: Path, tensors: dict[str, Tensor]) -> Path:
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    return folder


def diffusers_shards(folder: Path, tensors: dict[str, Tensor]) -> Path:
    inside = folder / "transformer"
    inside.mkdir()
    items = [(diffusers_name(name), t) for name, t in tensors.items()]
    parts = {"a.safetensors": dict(items[::2]), "b.safetensors": dict(items[1::2])}
    for name, part in parts.items():
        save_file(part, inside / name)
    index = {"weight_map": {key: name for name, part in parts.items() for key in part}}
    (inside / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def causvid(folder: Path, tensors: dict[str, Tensor]) -> Path:
    network = {f"model.{name}": t for name, t in tensors.items()}
    critic = {f"model.{name}": torch.zeros(1) for name in tensors}
    torch.save({"critic": critic, "generator": network}, folder / "model.pt")
    return folder


def self_forcing(folder: Path, tensors: dict[str, Tensor]) -> Path:
    path = folder / "self_forcing_dmd.pt"
    torch.save({"generator_ema": {f"model._fsdp_wrapped_module.{name}": t for name, t in tensors.items()}}, path)
    return path


@pytest.mark.parametrize("layout", [original, diffusers_shards, causvid, self_forcing])
def test_every_published_layout_is_the_same_network(layout, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    found = wan_checkpoint(layout(tmp_path, tensors))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].shape == tuple(tensor.shape)
        assert torch.equal(found[name].read(), tensor)


def test_what_cannot_be_read_is_named(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    (tmp_path / "bad.pt").write_bytes(b"no")
    (tmp_path / "notes.txt").write_text("no")
    torch.save({"optimizer": {"step": 1}}, tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"generator": tensors, "config": Path("x")}, tmp_path / "code.pt")
    for name, message in (
        ("none", "does not exist"),
        ("empty", "holds no network"),
        ("bad.safetensors", "damaged"),
        ("bad.pt", "damaged"),
        ("notes.txt", "no checkpoint"),
        ("other.pt", "found optimizer"),
        ("list.pt", "holds a list"),
        ("code.pt", "is not opened"),
    ):
        with pytest.raises(WeightsError, match=message):
            wan_checkpoint(tmp_path / name)

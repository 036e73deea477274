"""Published layouts of Wan checkpoints, as files the test makes: all give the same network."""

import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
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


def prefixed(prefix: str) -> Callable[[Path, dict[str, Tensor]], Path]:
    def layout(folder: Path, tensors: dict[str, Tensor]) -> Path:
        path = folder / "net.safetensors"
        save_file({f"{prefix}{name}": t for name, t in tensors.items()}, path)
        return path

    return layout


def deepspeed(folder: Path, tensors: dict[str, Tensor]) -> Path:
    torch.save({"module": tensors, "epoch": 3}, folder / "mp_rank_00_model_states.pt")
    return folder


def no_average(folder: Path, tensors: dict[str, Tensor]) -> Path:
    torch.save({"generator": tensors, "generator_ema": {}}, folder / "model.pt")
    return folder


def shards_alone(folder: Path, tensors: dict[str, Tensor]) -> Path:
    items = list(tensors.items())
    for i, part in enumerate((items[:9], items[9:20], items[20:]), 1):
        save_file(dict(part), folder / f"model-0000{i}-of-00003.safetensors")
    return folder


def only_file(folder: Path, tensors: dict[str, Tensor]) -> Path:
    save_file(tensors, folder / "Wan2_1-T2V-1_3B_fp32.safetensors")
    (folder / "README.md").write_text("words")
    return folder


LAYOUTS = (
    *(original, diffusers_shards, causvid, self_forcing, deepspeed, no_average, shards_alone, only_file),
    *(prefixed(prefix) for prefix in ("pipe.dit.", "transformer.", "dit.", "model.diffusion_model.")),
)


@pytest.mark.parametrize("layout", LAYOUTS)
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
    torch.save({"model": tensors, "args": Namespace(lr=1)}, tmp_path / "args.pt")
    whole = original(tmp_path, tensors) / "diffusion_pytorch_model.safetensors"
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:-8])
    whole.unlink()
    for name, message in (
        ("none", "does not exist"),
        ("empty", "holds no network"),
        ("bad.safetensors", "damaged"),
        ("bad.pt", "damaged"),
        ("notes.txt", "no checkpoint"),
        ("other.pt", "found optimizer"),
        ("list.pt", "holds a list"),
        ("code.pt", "is not opened"),
        ("args.pt", r"holds a argparse.Namespace beside its tensors.*save the tensors alone"),
        ("cut.safetensors", "its end is missing"),
        ("none.gguf", "does not exist"),
    ):
        with pytest.raises(WeightsError, match=message):
            wan_checkpoint(tmp_path / name)


def halves_and_scales(weight: Tensor, *, rows: bool) -> tuple[Tensor, Tensor]:
    scale = weight.abs().amax(1) / 448 if rows else weight.abs().amax() / 448
    return (weight / (scale[:, None] if rows else scale)).to(torch.float8_e4m3fn), scale


@pytest.mark.parametrize(("suffix", "rows"), [("scale_weight", False), ("weight_scale", True)])
def test_weights_of_8_bits_are_multiplied_by_their_scales(
    suffix: str, rows: bool, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    stored = {f"model.diffusion_model.{name}": t for name, t in tensors.items()}
    layers = [
        n.removesuffix(".weight") for n in tensors if n.startswith("blocks.") and n.endswith((".q.weight", ".0.weight"))
    ]
    for layer in layers:
        key = f"model.diffusion_model.{layer}"
        stored[f"{key}.weight"], stored[f"{key}.{suffix}"] = halves_and_scales(tensors[f"{layer}.weight"], rows=rows)
        stored[f"{key}.scale_input"] = torch.ones(1)
    stored["model.diffusion_model.scaled_fp8"] = torch.zeros(2).to(torch.float8_e4m3fn)
    save_file(stored, tmp_path / "net.safetensors")
    found = wan_checkpoint(tmp_path / "net.safetensors")
    assert found.keys() == tensors.keys()
    assert len(layers) == 6
    for name, tensor in tensors.items():
        ours = found[name].read().float()
        far = 0.04 if name.removesuffix(".weight") in layers else 0
        assert float((ours - tensor).norm()) <= far * float(tensor.norm())


def test_gguf(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "net.gguf", "wan")
    for name, tensor in tensors.items():
        stored = tensor.numpy()
        if tensor.ndim > 4:  # the format has four axes; converters of Wan keep the shape in a field
            writer.add_array(f"comfy.gguf.orig_shape.{name}", list(tensor.shape))
            stored = stored.reshape(tensor.shape[0], -1)
        kind = GGMLQuantizationType.Q8_0 if name.endswith("ffn.0.weight") and stored.shape[-1] % 32 == 0 else None
        writer.add_tensor(name, stored if kind is None else quantize(stored, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = wan_checkpoint(tmp_path / "net.gguf")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].shape == tuple(tensor.shape)
        torch.testing.assert_close(found[name].read(), tensor, rtol=0, atol=0.01 * float(tensor.abs().max()))


@pytest.mark.slow
def test_a_file_larger_than_memory_is_read_tensor_by_tensor(tmp_path: Path) -> None:
    """30 GB of holes, of which the file system stores nothing."""
    size, num = 10**9, 30
    header = {f"w{i}": {"dtype": "U8", "shape": [size], "data_offsets": [i * size, (i + 1) * size]} for i in range(num)}
    text = json.dumps(header).encode()
    path = tmp_path / "large.safetensors"
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + num * size)
    code = (
        "import sys, resource; from pathlib import Path; from longtake.weights.foreign import tensors_of\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert all(t.read()[-1] == 0 for t in tensors_of(Path(sys.argv[1])).values())\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < size + 10**9  # at most the tensor, and one that is not collected yet

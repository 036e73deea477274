"""Weights on disk: nothing lost, nothing mixed, and every kind of damage told by the name of its file."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from longtake.core.errors import WeightsError
from longtake.weights import checkpoint
from longtake.weights.checkpoint import digest, load_into, read_weights, save_weights, weight_files, write_json
from longtake.weights.manifest import check_digest, read_manifest
from longtake.weights.presets import open_nets
from tests.tiny import PRESET, write_model

KILOBYTE = 256  # fp32 numbers


def tensors(num: int = 6, size: int = KILOBYTE) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return {f"layer.{i}.weight": torch.randn(size, generator=rng) for i in range(num)}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of at most two kilobytes of numbers."""
    monkeypatch.setattr(checkpoint, "MAX_FILE_BYTES", 2 * 1024)


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    saved = tensors()
    paths = save_weights(tmp_path / "new" / "folder", "student", saved)
    assert [p.name for p in paths] == ["student.safetensors"]
    assert equal(read_weights(tmp_path / "new" / "folder", "student"), saved)


def test_half_precision_is_stored_rounded_and_nothing_worse(tmp_path: Path) -> None:
    saved = tensors()
    save_weights(tmp_path, "student", saved, dtype=torch.float16)
    found = read_weights(tmp_path, "student")
    for name, tensor in saved.items():
        assert found[name].dtype is torch.float16
        assert torch.equal(found[name], tensor.half())


@pytest.mark.usefixtures("small_files")
def test_large_weights_are_split_at_the_limit(tmp_path: Path) -> None:
    saved = tensors(num=5)
    paths = save_weights(tmp_path, "student", saved)
    assert [p.name for p in paths] == [f"student-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert equal(read_weights(tmp_path, "student"), saved)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.usefixtures("small_files")
def test_a_tensor_beyond_the_limit_has_a_file_of_its_own(tmp_path: Path) -> None:
    saved = {"a": torch.zeros(8), "large": torch.ones(4 * KILOBYTE), "z": torch.zeros(8)}
    assert len(save_weights(tmp_path, "codec", saved)) == 3
    assert equal(read_weights(tmp_path, "codec"), saved)


def test_files_of_an_older_split_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_weights(tmp_path, "student", {"old": torch.zeros(1)})
    monkeypatch.setattr(checkpoint, "MAX_FILE_BYTES", 2 * 1024)
    save_weights(tmp_path, "student", tensors())
    assert equal(read_weights(tmp_path, "student"), tensors())
    monkeypatch.undo()
    save_weights(tmp_path, "student", {"new": torch.ones(2)})
    assert [p.name for p in tmp_path.iterdir()] == ["student.safetensors"]
    assert equal(read_weights(tmp_path, "student"), {"new": torch.ones(2)})


def test_other_nets_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    save_weights(tmp_path, "student", tensors(2))
    save_weights(tmp_path, "student_ema", tensors(3))
    save_weights(tmp_path, "student", tensors(1))
    assert len(read_weights(tmp_path, "student_ema")) == 3
    assert len(read_weights(tmp_path, "student")) == 1


def test_weights_that_are_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no student.safetensors in .*is this a longtake model folder"):
        read_weights(tmp_path, "student")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def beheaded(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def overwritten(path: Path) -> None:
    path.write_bytes(b"\xff" * 500)


def pickled(path: Path) -> None:
    """A checkpoint of another kind under our name."""
    torch.save({"layer.0.weight": torch.zeros(3)}, path)


@pytest.mark.parametrize("damage", [truncated, beheaded, emptied, overwritten, pickled])
def test_a_damaged_or_foreign_file_is_told_by_its_name(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    (path,) = save_weights(tmp_path, "teacher", tensors())
    damage(path)
    with pytest.raises(WeightsError, match=r"teacher\.safetensors is damaged or not a safetensors file"):
        read_weights(tmp_path, "teacher")


def test_a_network_takes_only_weights_that_fit() -> None:
    net = nn.Linear(3, 2)
    right = {"weight": torch.ones(2, 3).half(), "bias": torch.zeros(2)}
    load_into(net, right, "a file")
    assert torch.equal(net.weight, torch.ones(2, 3))
    assert net.weight.dtype is torch.float32
    for wrong, told in (
        ({"weight": right["weight"]}, r"a file does not fit this network: 1 tensors are missing \(e.g. bias\)"),
        ({**right, "scale": torch.zeros(1)}, r"1 are unknown \(e.g. scale\)"),
        ({**right, "weight": torch.ones(3, 2)}, r"weight: \(3, 2\), expected \(2, 3\)"),
    ):
        with pytest.raises(WeightsError, match=told):
            load_into(net, wrong, "a file")
    assert torch.equal(net.weight, torch.ones(2, 3))  # a misfit changes nothing


@pytest.mark.usefixtures("small_files")
def test_the_hash_covers_every_file_and_every_byte(tmp_path: Path) -> None:
    paths = save_weights(tmp_path, "student", tensors())
    before = digest(paths)
    assert digest(weight_files(tmp_path, "student")) == before
    data = bytearray(paths[-1].read_bytes())
    data[-1] ^= 1
    paths[-1].write_bytes(data)
    assert digest(paths) != before


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    write_json(path, {"b": 1, "a": [1, 2]})
    cyclic: list[object] = []
    cyclic.append(cyclic)
    with pytest.raises((ValueError, RecursionError)):
        write_json(path, cyclic)
    assert json.loads(path.read_text()) == {"a": [1, 2], "b": 1}


# The manifest that travels with a model.


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def rewrite(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_manifest_is_read_as_it_was_written(model: Path) -> None:
    preset, hashes = read_manifest(model)
    assert preset == PRESET
    assert hashes.keys() == {"student", "teacher", "codec"}
    assert all(check_digest(model, name, hashes) == digest(weight_files(model, name)) for name in hashes)


def test_a_model_opens_with_the_weights_that_were_saved(model: Path) -> None:
    nets = open_nets(str(model))
    assert nets.preset == PRESET
    stored = read_weights(model, "student")
    assert all(torch.equal(p, stored[name].float()) for name, p in nets.dit.state_dict().items())
    assert not any(p.requires_grad for p in (*nets.dit.parameters(), *nets.codec.parameters()))
    assert nets.digest != open_nets(str(model), teacher=True).digest


def test_a_folder_without_a_manifest_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"holds no manifest\.json"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "not json", "[1, 2]", '"text"', "{}", "null", '{"format": 1}', "\udcff"])
def test_a_manifest_that_is_none_is_told(model: Path, text: str) -> None:
    (model / "manifest.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(WeightsError, match=r"manifest\.json is damaged"):
        read_manifest(model)


def test_a_manifest_of_the_future_is_told(model: Path) -> None:
    rewrite(model, format=99)
    with pytest.raises(WeightsError, match="has format 99, this longtake reads 1; update longtake"):
        read_manifest(model)


def preset_with(model: Path, part: str, **changes: object) -> dict[str, object]:
    preset = json.loads((model / "manifest.json").read_text())["preset"]
    return {**preset, part: {**preset[part], **changes}}


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("dit", {"num_heads": 0}),
        ("dit", {"num_heads": 5}),
        ("dit", {"dim": "wide"}),
        ("dit", {"in_dim": 3}),
        ("stream", {"chunk": 0}),
        ("stream", {"window": 4}),
        ("stream", {"window": 0}),
        ("size", {"height": 33}),
    ],
)
def test_a_manifest_that_contradicts_itself_is_told(model: Path, part: str, changes: dict[str, object]) -> None:
    rewrite(model, preset=preset_with(model, part, **changes))
    with pytest.raises(WeightsError, match=r"manifest\.json is damaged"):
        read_manifest(model)


@pytest.mark.parametrize("hashes", ["abc", 5, None, ["student"]])
def test_hashes_that_are_none_are_told(model: Path, hashes: object) -> None:
    rewrite(model, sha256=hashes)
    with pytest.raises(WeightsError, match=r"manifest\.json is damaged"):
        read_manifest(model)


def test_weights_that_were_exchanged_are_told(model: Path) -> None:
    save_weights(model, "student", read_weights(model, "teacher"), dtype=torch.float16)
    with pytest.raises(WeightsError, match=r"student in .* is damaged or was exchanged"):
        open_nets(str(model))
    assert open_nets(str(model), teacher=True).preset == PRESET


def test_a_net_without_a_hash_is_not_trusted(model: Path) -> None:
    _, hashes = read_manifest(model)
    rewrite(model, sha256={name: value for name, value in hashes.items() if name != "codec"})
    with pytest.raises(WeightsError, match="model has no codec, only student, teacher; its manifest is damaged"):
        open_nets(str(model))


def test_a_model_without_its_student_is_told(model: Path) -> None:
    (model / "student.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"no student\.safetensors in .*incomplete"):
        open_nets(str(model))

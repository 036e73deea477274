"""Which models there are, and opening one: nets with their weights, checked against the manifest."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from torch import nn

from longtake.core.configs import Preset
from longtake.core.errors import WeightsError
from longtake.nets.codec import Codec, codec_for
from longtake.nets.dit import DiT
from longtake.weights.checkpoint import load_into, read_weights, weight_files
from longtake.weights.manifest import NETS, check_digest, read_manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """What `longtake models` shows of a model."""

    name: str
    description: str
    path: Path
    files: dict[str, int]  # file name -> bytes
    parameters: dict[str, int]  # net -> number of parameters
    sha256: dict[str, str]  # net -> hash of its files


@dataclass(frozen=True, kw_only=True)
class Nets:
    """The nets of an opened model, frozen, on their device."""

    preset: Preset
    dit: DiT
    codec: Codec
    digest: str  # of the network and the codec together


def packaged_models() -> Path:
    """The folder of the models that ship inside the package."""
    return Path(str(resources.files("longtake.weights") / "data"))


def model_folder(name: str) -> Path:
    """Where a model lies: a packaged name, or a folder.

    Raises:
        WeightsError: neither.
    """
    packaged = packaged_models() / name
    if (packaged / "manifest.json").is_file():
        return packaged
    if Path(name).is_dir():
        return Path(name)
    known = ", ".join(info.name for info in list_models())
    raise WeightsError(f'no model "{name}": give a model folder or one of: {known or "(none)"}')


def list_models() -> list[ModelInfo]:
    """The packaged models."""
    return [describe(path.parent) for path in sorted(packaged_models().glob("*/manifest.json"))]


def describe(folder: Path) -> ModelInfo:
    """A model folder in figures, without loading weights.

    Raises:
        WeightsError: the manifest is missing or damaged.
    """
    preset, sha256 = read_manifest(folder)
    files = {p.name: p.stat().st_size for n in NETS for p in weight_files(folder, n)}
    with torch.device("meta"):
        dit, codec = DiT(preset.dit), codec_for(preset.codec)
    sizes = {"student": _count(dit), "teacher": _count(dit), "codec": _count(codec)}
    return ModelInfo(
        name=preset.name,
        description=preset.description,
        path=folder,
        files=files,
        parameters={name: sizes[name] for name in sha256},
        sha256=sha256,
    )


def open_nets(name: str, *, teacher: bool = False, device: str = "cpu") -> Nets:
    """Load a model's network (the student, or the teacher) and its codec.

    Raises:
        WeightsError: the model is unknown, incomplete, damaged, or made for another network.
    """
    folder = model_folder(name)
    preset, sha256 = read_manifest(folder)
    kind = "teacher" if teacher else "student"
    digest = f"{check_digest(folder, kind, sha256)[:16]}-{check_digest(folder, 'codec', sha256)[:16]}"
    dit, codec = DiT(preset.dit), codec_for(preset.codec)
    load_into(dit, read_weights(folder, kind), f"{kind} in {folder}")
    load_into(codec, read_weights(folder, "codec"), f"codec in {folder}")
    for net in (dit, codec):
        net.to(device).eval().requires_grad_(requires_grad=False)
    return Nets(preset=preset, dit=dit, codec=codec, digest=digest)


def _count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())

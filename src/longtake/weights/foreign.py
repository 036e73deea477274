"""Published checkpoints, read tensor by tensor: files, folders and shards of safetensors, and `.pt` without code.

Tensors are loaded on access, so that converting a network needs little more memory than one tensor.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from longtake.core.errors import WeightsError
from longtake.weights.wan.names import CONTAINERS, GENERATORS, wan_tensors

NAMES = (  # names of the network's file in a folder, the likeliest first
    "model.pt",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "model.safetensors",
)
PICKLES = (".pt", ".pth", ".bin", ".ckpt")


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignTensor:
    """A tensor with known shape whose content is read on demand."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]


def wan_checkpoint(path: Path) -> dict[str, ForeignTensor]:
    """Tensors of a Wan transformer by their original names, from a file or a folder in any published layout.

    Raises:
        WeightsError: there is no network, a file is damaged or holds code, or the network is not one of Wan 2.1.
    """
    return wan_tensors(tensors_of(found(path)))


def tensors_of(path: Path) -> dict[str, ForeignTensor]:
    """All tensors of a file, or of the shards in an index, under the names in the file.

    Raises:
        WeightsError: the file is missing, damaged, or holds code.
    """
    return dict(_tensors(path))


def is_distilled(path: Path) -> bool:
    """Whether a file was written by the distillation of a student, with an entry named "generator"."""
    if path.suffix not in PICKLES:
        return False
    content = _opened(path)
    return isinstance(content, Mapping) and any(name in content for name in GENERATORS)


class Contents(Mapping[str, Tensor]):
    """Tensors by name, each read on access, so that a network is never whole in memory."""

    def __init__(self, tensors: Mapping[str, ForeignTensor], read: Callable[[int], None]) -> None:
        """Wrap `tensors`; `read` is called with the number of tensors accessed so far."""
        self._tensors, self._read, self._done = tensors, read, 0

    def __getitem__(self, name: str) -> Tensor:
        self._done += 1
        self._read(self._done)
        return self._tensors[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def found(path: Path) -> Path:
    """Path of the network's file, or of the index of its shards.

    Raises:
        WeightsError: there is none, or the folder holds the two networks of Wan 2.2.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise WeightsError(f"{path} does not exist; give a checkpoint file, or the folder it is in")
    if (path / "transformer_2").exists():
        raise WeightsError(f"{path} has two networks, one for each half of the noise levels (Wan 2.2): not known here")
    for folder in (path, path / "transformer"):
        for name in NAMES:
            if (folder / name).is_file():
                return folder / name
    held = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
    raise WeightsError(f"{path} holds no network: expected one of {', '.join(NAMES)}, found {held}")


def _tensors(path: Path) -> Iterator[tuple[str, ForeignTensor]]:
    if path.name.endswith(".index.json"):
        try:
            shards = sorted(set(json.loads(path.read_text())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as err:
            raise WeightsError(f"{path} is no index of shards ({err})") from err
        for shard in shards:
            yield from _of_safetensors(path.parent / shard)
    elif path.suffix == ".safetensors":
        yield from _of_safetensors(path)
    elif path.suffix in PICKLES:
        yield from _of_pickle(path)
    else:
        raise WeightsError(f"{path.name} is no checkpoint: expected .safetensors, .pt, .pth, .bin or .ckpt")


def _of_safetensors(path: Path) -> Iterator[tuple[str, ForeignTensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as err:
        raise WeightsError(f"{path} is missing, damaged or no safetensors file ({err})") from err

    def reader(key: str) -> Callable[[], Tensor]:
        def read() -> Tensor:
            with safe_open(path, framework="pt") as file:
                return file.get_tensor(key)

        return read

    for key, shape in shapes.items():
        yield key, ForeignTensor(shape=shape, read=reader(key))


def _of_pickle(path: Path) -> Iterator[tuple[str, ForeignTensor]]:
    tensors = _network_of(_opened(path), path)
    for key, tensor in tensors.items():
        yield key, ForeignTensor(shape=tuple(tensor.shape), read=lambda tensor=tensor: tensor)


def _opened(path: Path) -> object:
    """Content of a `.pt` file, memory-mapped; torch refuses files that could run code."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as err:
        reason = str(err).split("\n", 1)[0][:160]
        raise WeightsError(f"{path} is damaged, or holds more than tensors and is not opened ({reason})") from err


def _network_of(content: object, path: Path) -> Mapping[str, Tensor]:
    """Tensors of the network in a file's content: averaged weights before others, or the file's own tensors."""
    if isinstance(content, Mapping):
        for name in CONTAINERS:
            if isinstance(content.get(name), Mapping):
                return _only_tensors(content[name])
        if any(isinstance(value, Tensor) for value in content.values()):
            return _only_tensors(content)
        keys = ", ".join(str(key) for key in list(content)[:8])
        raise WeightsError(
            f"{path} holds no network: expected one of {', '.join(CONTAINERS)}, found {keys or 'nothing'}"
        )
    raise WeightsError(f"{path} holds a {type(content).__name__}, not tensors by name")


def _only_tensors(content: Mapping[str, object]) -> dict[str, Tensor]:
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}

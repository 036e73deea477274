"""Published checkpoints, read tensor by tensor: files, folders and shards in every layout that is known.

Tensors are loaded on access, so that converting a network needs little more memory than one tensor.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from longtake.core.errors import WeightsError
from longtake.weights.tensor_files import PICKLES, ForeignTensor, of_gguf, of_pickle, of_safetensors
from longtake.weights.wan.names import CONTAINERS, GENERATORS, wan_tensors

NAMES = (  # names of the network's file in a folder, the likeliest first
    "model.pt",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "model.safetensors",
)
SHARDS = "*-00001-of-*.safetensors"  # first of the shards of a folder that has no index
SUFFIXES = (".safetensors", ".gguf", *PICKLES)
SCALES = (".scale_weight", ".weight_scale")  # scales of 8-bit weights: ComfyUI's (one), LightX2V's (one for each row)
BESIDE = (".scale_input", ".input_scale", ".comfy_quant")  # settings of 8-bit products, which are not needed here
MARKS = ("scaled_fp8",)


def wan_checkpoint(path: Path, key: str | None = None) -> dict[str, ForeignTensor]:
    """Tensors of a Wan transformer by their original names, from a file or a folder in any published layout.

    Args:
        path: file or folder.
        key: entry of a file of torch's that holds the network; None: the likeliest.

    Raises:
        WeightsError: there is no network, a file is damaged or holds code, or the network is not one of Wan 2.1.
    """
    return wan_tensors(with_scales(tensors_of(found(path), key)))


def tensors_of(path: Path, key: str | None = None) -> dict[str, ForeignTensor]:
    """All tensors of a file, or of the shards in an index, under the names in the file.

    Args:
        path: the file.
        key: entry of a file of torch's that holds the tensors; None: the likeliest.

    Raises:
        WeightsError: the file is missing, damaged, or holds code, or has no such entry.
    """
    return dict(_tensors(path, key))


def with_scales(tensors: Mapping[str, ForeignTensor]) -> dict[str, ForeignTensor]:
    """Tensors with the scales of 8-bit weights multiplied into them, in bf16."""
    kept = {
        key: tensor
        for key, tensor in tensors.items()
        if not key.endswith((*SCALES, *BESIDE)) and key.rpartition(".")[2] not in MARKS
    }
    for key, scale in tensors.items():
        suffix = next((suffix for suffix in SCALES if key.endswith(suffix)), None)
        name = f"{key.removesuffix(suffix or '')}.weight"
        if suffix is None or name not in kept:
            continue

        def read(weight: ForeignTensor = kept[name], scale: ForeignTensor = scale) -> Tensor:
            factor = scale.read().float()
            return (weight.read().float() * (factor.view(-1, 1) if factor.numel() > 1 else factor)).bfloat16()

        kept[name] = ForeignTensor(shape=kept[name].shape, read=read)
    return kept


def is_distilled(path: Path) -> bool:
    """Whether a file is that of a causal student: written by its distillation, with an entry named "generator", or a
    bare network under the names that such training gives it.
    """
    if path.suffix not in PICKLES:
        return False
    content = of_pickle(path)
    if not isinstance(content, Mapping):
        return False
    names = [str(name) for name in content]
    wrapped = [name for name in names if name.startswith("model.") and not name.startswith("model.diffusion_model.")]
    return any(name in content for name in GENERATORS) or (bool(names) and len(wrapped) == len(names))


class Contents(Mapping[str, Tensor]):
    """Tensors by name, each read on access and checked, so that a network is never whole in memory."""

    def __init__(self, tensors: Mapping[str, ForeignTensor], read: Callable[[int], None]) -> None:
        """Wrap `tensors`; `read` is called with the number of tensors accessed so far."""
        self._tensors, self._read, self._done = tensors, read, 0

    def __getitem__(self, name: str) -> Tensor:
        """The tensor `name`. Raises WeightsError if it has values that are not finite."""
        self._done += 1
        self._read(self._done)
        tensor = self._tensors[name].read()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
            raise WeightsError(f"{name} has values that are not finite; is this from a training that diverged?")
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def found(path: Path) -> Path:
    """Path of the network's file, or of the index or the first of its shards.

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
        if shards := sorted(folder.glob(SHARDS)):
            return shards[0]
    held = sorted(p.name for p in path.iterdir())
    single = [path / name for name in held if name.endswith(SUFFIXES)]
    if len(single) == 1:
        return single[0]
    told = ", ".join(held[:8]) or "nothing"
    raise WeightsError(f"{path} holds no network: expected one of {', '.join(NAMES)}, found {told}")


def _tensors(path: Path, key: str | None) -> Iterator[tuple[str, ForeignTensor]]:
    if path.name.endswith(".index.json"):
        try:
            shards = sorted(set(json.loads(path.read_text())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as err:
            raise WeightsError(f"{path} is no index of shards ({err})") from err
        for shard in shards:
            yield from of_safetensors(path.parent / shard)
    elif path.match(SHARDS):
        stem, _, num = path.stem.rpartition("-00001-of-")
        for i in range(1, int(num) + 1 if num.isdecimal() else 2):
            yield from of_safetensors(path.with_name(f"{stem}-{i:05d}-of-{num}.safetensors"))
    elif path.suffix == ".safetensors":
        yield from of_safetensors(path)
    elif path.suffix == ".gguf":
        yield from of_gguf(path)
    elif path.suffix in PICKLES:
        for name, tensor in _network_of(of_pickle(path), path, key).items():
            yield name, ForeignTensor(shape=tuple(tensor.shape), read=lambda tensor=tensor: tensor)
    else:
        raise WeightsError(f"{path.name} is no checkpoint: expected one of {', '.join(SUFFIXES)}")


def entry_of(path: Path, preferred: str | None = None) -> str | None:
    """Key of the entry of a file of torch's from which tensors are read; None if it has them without an entry.

    Args:
        path: the file; other kinds of files have no entries.
        preferred: the key that is taken if the file has it; else averaged weights come before others.
    """
    content = of_pickle(path) if path.suffix in PICKLES else None
    return _entry(content, (preferred, *CONTAINERS)) if isinstance(content, Mapping) else None


def _entry(content: Mapping[str, object], keys: Sequence[str | None]) -> str | None:
    """The first of `keys` under which there are tensors."""
    return next((key for key in keys if key is not None and _tensors_under(content, key)), None)


def _tensors_under(content: Mapping[str, object], key: str) -> dict[str, Tensor]:
    entry = content.get(key)
    return _only_tensors(entry) if isinstance(entry, Mapping) else {}


def _network_of(content: object, path: Path, key: str | None) -> Mapping[str, Tensor]:
    """Tensors of an entry of a file's content (None: see `entry_of`), or the file's own tensors."""
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not tensors by name")
    keys = ", ".join(str(name) for name in list(content)[:8]) or "nothing"
    if key is not None and not _tensors_under(content, key):
        raise WeightsError(f'{path} has no entry "{key}" with tensors; it has {keys}')
    if (chosen := key or _entry(content, CONTAINERS)) is not None:
        return _tensors_under(content, chosen)
    if own := _only_tensors(content):
        return own
    raise WeightsError(f"{path} holds no network: expected one of {', '.join(CONTAINERS)}, found {keys}")


def _only_tensors(content: Mapping[str, object]) -> dict[str, Tensor]:
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}

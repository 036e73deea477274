"""Weights on disk: safetensors in files of at most 16 MB by default, with names and shapes checked on loading."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from longtake.core.errors import WeightsError
from longtake.core.files import atomic

MAX_FILE_BYTES = 15_500_000
HASHED_AT_ONCE = 16 * 2**20


def save_weights(
    folder: Path,
    name: str,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype = torch.float32,
    max_file_bytes: int | None = None,
) -> list[Path]:
    """Write `name.safetensors`, or shards `name-00001-of-0000N.safetensors` if it is large, and return the paths.

    Tensors are read from the mapping one by one, and at most one file of them is held in memory. Old files of that name
    are removed only after the new ones are complete.

    Args:
        folder: folder of the files, created if missing.
        name: name of the net: "student", "codec", ...
        tensors: tensors by parameter name.
        dtype: precision in which floating-point tensors are stored.
        max_file_bytes: largest size of a file; None: `MAX_FILE_BYTES`. A larger tensor has a file of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[Path] = []
    group: dict[str, Tensor] = {}

    def write() -> None:
        parts.append(folder / f"{name}.{len(parts)}.part")
        save_file(group, parts[-1])
        group.clear()

    size, limit = 0, max_file_bytes or MAX_FILE_BYTES
    try:
        for key, tensor in tensors.items():
            stored = tensor.detach().cpu().to(dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
            if group and size + stored.nbytes > limit:
                write()
                size = 0
            group[key] = stored
            size += stored.nbytes
        write()
    except BaseException:
        for part in parts:
            part.unlink(missing_ok=True)
        raise
    paths = []
    for i, part in enumerate(parts, 1):
        suffix = "" if len(parts) == 1 else f"-{i:05d}-of-{len(parts):05d}"
        paths.append(part.replace(folder / f"{name}{suffix}.safetensors"))
    for stale in set(weight_files(folder, name)) - set(paths):
        stale.unlink()
    return paths


def weight_files(folder: Path, name: str) -> list[Path]:
    """Files that hold the weights `name`, in order."""
    return sorted((*folder.glob(f"{name}.safetensors"), *folder.glob(f"{name}-*-of-*.safetensors")))


def read_weights(folder: Path, name: str) -> dict[str, Tensor]:
    """Read all tensors of the weights `name`.

    Raises:
        WeightsError: there is no such file, or one is damaged.
    """
    paths = weight_files(folder, name)
    if not paths:
        raise WeightsError(f"no {name}.safetensors in {folder}; is this a longtake model folder?")
    tensors: dict[str, Tensor] = {}
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                tensors.update({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
        except (SafetensorError, OSError) as err:
            raise WeightsError(f"{path} is damaged or not a safetensors file ({err})") from err
    return tensors


def load_into(net: nn.Module, tensors: Mapping[str, Tensor], source: str, dtype: torch.dtype = torch.float32) -> None:
    """Load tensors into a network, cast to `dtype`; a network on the meta device adopts them without a copy.

    Raises:
        WeightsError: names or shapes differ; the message counts them and gives an example of each kind.
    """
    check_fits(net, {name: tuple(t.shape) for name, t in tensors.items()}, source)
    empty = any(p.is_meta for p in net.parameters())
    net.load_state_dict({name: t.to(dtype) for name, t in tensors.items()}, assign=empty)


def check_fits(net: nn.Module, found: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Compare names and shapes of tensors with those of a network.

    Raises:
        WeightsError: names or shapes differ; the message counts them and gives an example of each kind.
    """
    wanted = {name: tuple(t.shape) for name, t in net.state_dict().items()}
    missing = sorted(wanted.keys() - found.keys())
    extra = sorted(found.keys() - wanted.keys())
    wrong = sorted(n for n in wanted.keys() & found.keys() if wanted[n] != found[n])
    if missing or extra or wrong:
        parts = []
        if missing:
            parts.append(f"{len(missing)} tensors are missing (e.g. {missing[0]})")
        if extra:
            parts.append(f"{len(extra)} are unknown (e.g. {extra[0]})")
        if wrong:
            n = wrong[0]
            parts.append(f"{len(wrong)} have another shape (e.g. {n}: {found[n]}, expected {wanted[n]})")
        raise WeightsError(f"{source} does not fit this network: " + "; ".join(parts))


def digest(paths: list[Path]) -> str:
    """SHA-256 over the contents of files in order, as hexadecimal digits."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(HASHED_AT_ONCE):
                total.update(piece)
    return total.hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON; the file appears whole or not at all."""
    with atomic(path) as part:
        part.write_text(json.dumps(value, indent=2, sort_keys=True, default=str) + "\n")


def link_files(files: Sequence[Path], folder: Path) -> None:
    """Hard-link files into a folder, or copy them where the file system cannot."""
    for file in files:
        real, target = file.resolve(), folder / file.name
        target.unlink(missing_ok=True)
        try:
            os.link(real, target)
        except OSError:
            shutil.copyfile(real, target)

"""Tensors of files, each read on its own: safetensors, torch's own files without code, GGUF."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from longtake.core.errors import WeightsError

PICKLES = (".pt", ".pth", ".bin", ".ckpt")
MAX_HEADER_BYTES = 100 * 2**20  # limit of the format's own library
SAFETENSORS_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
UNKNOWN_CLASS = re.compile(r"GLOBAL ([\w.]+)|Unsupported class ([\w.]+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignTensor:
    """A tensor with known shape whose content is read on demand."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]


def of_safetensors(path: Path) -> Iterator[tuple[str, ForeignTensor]]:
    """Tensors of a safetensors file, which is not mapped into memory: a mapping above the memory may be refused.

    Raises:
        WeightsError: the file is missing or damaged, or has numbers of an unknown kind.
    """
    try:
        header, start = _header(path)
        entries = {key: _entry(key, entry) for key, entry in header.items() if key != "__metadata__"}
        size = path.stat().st_size - start
        missing = [key for key, (_, _, (_, stop)) in entries.items() if stop > size]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise WeightsError(f"{path} is missing, damaged or no safetensors file ({err})") from err

    if missing:
        raise WeightsError(f"{path} is damaged: its end is missing, from {missing[0]} on")

    def reader(dtype: torch.dtype, shape: tuple[int, ...], span: tuple[int, int]) -> Callable[[], Tensor]:
        def read() -> Tensor:
            content = bytearray(span[1] - span[0])
            with path.open("rb", buffering=0) as file:
                file.seek(start + span[0])
                done = 0
                while done < len(content) and (num := file.readinto(memoryview(content)[done:])):
                    done += num
            if done < len(content):
                raise WeightsError(f"{path} has become shorter while it was read")
            return torch.frombuffer(content, dtype=dtype).view(shape) if content else torch.empty(shape, dtype=dtype)

        return read

    for key, (dtype, shape, span) in entries.items():
        yield key, ForeignTensor(shape=shape, read=reader(dtype, shape, span))


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The description of a file's tensors, and where their content begins."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(MAX_HEADER_BYTES, path.stat().st_size - 8):
            raise ValueError("it has no header")
        return json.loads(file.read(length)), 8 + length


def _entry(key: str, entry: Mapping[str, Any]) -> tuple[torch.dtype, tuple[int, ...], tuple[int, int]]:
    if entry["dtype"] not in SAFETENSORS_DTYPES:
        raise ValueError(f"{key} has numbers of kind {entry['dtype']}, which are not read")
    dtype, shape = SAFETENSORS_DTYPES[entry["dtype"]], tuple(int(size) for size in entry["shape"])
    begin, stop = (int(offset) for offset in entry["data_offsets"])
    if begin < 0 or stop - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{key} has {stop - begin} bytes, which are not {shape} numbers")
    return dtype, shape, (begin, stop)


def of_pickle(path: Path) -> object:
    """Content of a file that torch has saved; torch refuses files that could run code.

    Raises:
        WeightsError: the file is missing or damaged, or holds objects that are no tensors.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as err:
        if isinstance(err, UnpicklingError) and (found := UNKNOWN_CLASS.search(str(err))):
            raise WeightsError(
                f"{path} holds a {next(filter(None, found.groups()))} beside its tensors; reading that could run code, "
                "so the file is not opened: save the tensors alone where you trust it, "
                'torch.save(torch.load(FILE, weights_only=False)["model"], NEW)'
            ) from err
        if "unable to mmap" in str(err):
            raise WeightsError(
                f"{path} is larger than this machine's memory; convert it to safetensors on another one, "
                "which is read tensor by tensor"
            ) from err
        reason = re.sub(r"\x1b\[\d*m", "", str(err)).split("\n", 1)[0][:160]
        raise WeightsError(f"{path} is damaged, or holds more than tensors and is not opened ({reason})") from err


def of_gguf(path: Path) -> Iterator[tuple[str, ForeignTensor]]:
    """Tensors of a GGUF file, dequantised to fp32 when they are read.

    Raises:
        WeightsError: the gguf package is not installed, or the file is missing or damaged.
    """
    if find_spec("gguf") is None:
        raise WeightsError(f'{path} is a GGUF file; to read such files: pip install "longtake[gguf]"')
    from gguf import GGUFReader  # noqa: PLC0415  (an extra)
    from gguf.quants import dequantize  # noqa: PLC0415

    try:
        reader = GGUFReader(path)
    except (OSError, ValueError, IndexError, KeyError) as err:
        raise WeightsError(f"{path} is missing, damaged or no GGUF file ({err})") from err

    def shape_of(tensor: Any) -> tuple[int, ...]:
        """Shape in torch's order; the format has at most four axes, and a field for tensors with more."""
        field = reader.get_field(f"comfy.gguf.orig_shape.{tensor.name}")
        if field is not None:
            return tuple(int(field.parts[index][0]) for index in field.data)
        return tuple(int(size) for size in reversed(tensor.shape))

    for tensor in reader.tensors:
        shape = shape_of(tensor)

        def read(tensor: Any = tensor, shape: tuple[int, ...] = shape) -> Tensor:
            return torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy()).view(shape)

        yield tensor.name, ForeignTensor(shape=shape, read=read)

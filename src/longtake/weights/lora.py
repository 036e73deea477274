"""LoRA files for a network, in the names of those who train them, as corrections of the network's parameters.

    W + (alpha / r) U D      D [r, in] and U [out, r]; alpha = r where a file does not say

| trained or written by | name of a layer | tensors |
|---|---|---|
| kohya, musubi-tuner | `lora_unet_blocks_0_cross_attn_k` | `.lora_down.weight`, `.lora_up.weight`, `.alpha` |
| VideoX-Fun | `lora_unet__blocks_0_cross_attn_k` | the same |
| ComfyUI, diffusion-pipe | `diffusion_model.blocks.0.cross_attn.k` | `.lora_A.weight`, `.lora_B.weight` |
| diffusers, finetrainers | `transformer.blocks.0.attn2.to_k` | the same |
| DiffSynth, UniAnimate | `pipe.dit.blocks.0.cross_attn.k` | the same, or `.lora_A.default.weight` |
| PEFT, LongLive | `base_model.model.blocks.0.cross_attn.k`, in `generator_lora` | the same |
| extractions from fine-tuned models | any of these | also `.diff`, `.diff_b`, `.diff_m` |

`.diff`, `.diff_b` and `.diff_m` are whole differences of a weight, a bias and a modulation.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from longtake.core.errors import WeightsError
from longtake.weights.foreign import tensors_of
from longtake.weights.tensor_files import ForeignTensor
from longtake.weights.wan.names import diffusers_name, peeled

PREFIXES = (
    *("base_model.model.", "pipe.dit.", "diffusion_model.", "transformer.", "generator.", "model.", "dit.", "unet."),
    *("lora_unet__", "lora_unet_", "lora_transformer_", "lycoris_"),
)
DOWN, UP, ALPHA, DIFFERENCE = "down", "up", "alpha", "difference"
SUFFIXES = tuple(  # pattern of the end of a key, kind of the tensor, suffix of the parameter that it corrects
    (re.compile(rf"(?P<layer>.+)\.{pattern}"), kind, parameter)
    for pattern, kind, parameter in (
        (r"lora(?:_A|_down|\.down)(?:\.[^.]+)?(?:\.weight)?", DOWN, ".weight"),
        (r"lora(?:_B|_up|\.up)(?:\.[^.]+)?(?:\.weight)?", UP, ".weight"),
        (r"(?:lora_)?alpha", ALPHA, ".weight"),
        (r"diff", DIFFERENCE, ".weight"),
        (r"diff_b", DIFFERENCE, ".bias"),
        (r"diff_m", DIFFERENCE, ".modulation"),
    )
)
OTHER_KINDS = {  # part of a key -> what such a file is
    "hada_": "a LoHa",
    "lokr_": "a LoKr",
    "dora_scale": "a DoRA",
    "lora_magnitude_vector": "a DoRA",
    "oft_": "an OFT",
    "glora": "a GLoRA",
}
SHOWN = 3  # keys that a message names


@dataclass(frozen=True, kw_only=True, slots=True)
class LowRank:
    """Low-rank correction of a weight: scale * up @ down."""

    down: Tensor  # [r, in] or, for a convolution, [r, in, ...]
    up: Tensor  # [out, r], or [out, r, 1, ...]
    scale: float

    def difference(self, weight: Tensor) -> Tensor:
        """The correction of `weight`, in fp32 on its device."""
        up, down = (each.to(weight.device).flatten(1).float() for each in (self.up, self.down))
        return (self.scale * (up @ down)).view(weight.shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lora:
    """Corrections of a network's parameters, by name, and the keys of the file that no parameter corresponds to."""

    low_rank: Mapping[str, LowRank]
    differences: Mapping[str, Tensor]
    unmatched: tuple[str, ...] = ()

    def difference(self, name: str, weight: Tensor) -> Tensor | None:
        """What the file adds to the parameter `name`, in fp32 on its device; None if it does not correct it."""
        parts = []
        if (low := self.low_rank.get(name)) is not None:
            parts.append(low.difference(weight))
        if (difference := self.differences.get(name)) is not None:
            parts.append(difference.to(weight.device).float().view(weight.shape))
        return None if not parts else sum(parts[1:], parts[0])

    def corrects(self, name: str) -> bool:
        """Whether the file has a correction of the parameter `name`."""
        return name in self.low_rank or name in self.differences

    @property
    def told(self) -> str:
        """What the file corrects, and what of it is left out, in a line."""
        line = f"{len(self.low_rank) + len(self.differences)} parameters corrected"
        if self.unmatched:
            few = ", ".join(self.unmatched[:SHOWN]) + (", ..." if len(self.unmatched) > SHOWN else "")
            line += f"; {len(self.unmatched)} tensors are for parts that this network does not have ({few})"
        return line


@dataclass(slots=True)
class _Found:
    """Tensors of a parameter, as they are found."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)


def read_lora(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Lora:
    """Read a LoRA for a network whose parameters have these names and shapes.

    Args:
        path: a safetensors file, a file of torch's, or PEFT's folder of adapter_model and adapter_config.json.
        shapes: shapes of the network's parameters by original Wan name.

    Raises:
        WeightsError: the file is missing, damaged, no LoRA, incomplete, or for another network.
    """
    file, alphas = _opened(path)
    resolve = _resolver(shapes)
    found: dict[str, _Found] = {}
    unmatched: list[str] = []
    for key, tensor in tensors_of(file).items():
        for part, what in OTHER_KINDS.items():
            if part in key:
                raise WeightsError(f"{path} is {what}, not a LoRA ({key}); merge it in the tool that made it")
        kind, parameter = _kind_of(key, resolve, path)
        if parameter is None:
            unmatched.append(key)
            continue
        own = found.setdefault(parameter, _Found())
        if kind in own.tensors:
            raise WeightsError(f"{path} corrects {parameter} twice: {own.keys[-1]} and {key}; is it one LoRA?")
        own.tensors[kind] = tensor.read()
        own.keys.append(key)
    if not found:
        raise WeightsError(
            f"{path} is a LoRA for another network: none of its {len(unmatched)} tensors ({unmatched[0]}, ...) "
            "belongs to a layer of this one"
        )
    low_rank, differences = {}, {}
    for parameter, own in found.items():
        if DIFFERENCE in own.tensors:
            differences[parameter] = own.tensors[DIFFERENCE]
        if {DOWN, UP} & own.tensors.keys():
            low_rank[parameter] = _low_rank(own, alphas, path)
        _check_shape(parameter, own, shapes[parameter], path)
    return Lora(low_rank=low_rank, differences=differences, unmatched=tuple(unmatched))


def _kind_of(key: str, resolve: Callable[[str], str | None], path: Path) -> tuple[str, str | None]:
    """Kind of a tensor, and the parameter that it corrects; None if the network has none."""
    for pattern, kind, suffix in SUFFIXES:
        if (match := pattern.fullmatch(key)) is not None:
            return kind, resolve(f"{match['layer']}{suffix}")
    raise WeightsError(f"{path} is no LoRA: it has a tensor {key}, which is none of lora_A, lora_B, alpha, diff")


def _resolver(shapes: Mapping[str, tuple[int, ...]]) -> Callable[[str], str | None]:
    """Function from a layer's name in any of the dialects, and its parameter's suffix, to the parameter's own name."""
    names = {}
    for name in shapes:
        stem, dot, suffix = name.rpartition(".")
        for spelled in {stem, diffusers_name(name).removesuffix(dot + suffix)}:
            for alias in (spelled, spelled.replace(".", "_")):
                names[f"{alias}.{suffix}"] = name
        if suffix not in ("weight", "bias"):  # a modulation, which some files call a weight
            names[f"{name}.weight"] = name

    def resolve(name: str) -> str | None:
        rest = peeled(name)
        while rest not in names:
            prefix = next((prefix for prefix in PREFIXES if rest.startswith(prefix)), None)
            if prefix is None:
                return None
            rest = rest.removeprefix(prefix)
        return names[rest]

    return resolve


def _low_rank(own: _Found, alphas: Callable[[int], float], path: Path) -> LowRank:
    try:
        down, up = own.tensors[DOWN], own.tensors[UP]
    except KeyError:
        raise WeightsError(f"{path} is not whole: beside {own.keys[0]} its other half is missing") from None
    rank = len(down)
    alpha = own.tensors.get(ALPHA)
    scale = alphas(rank) if alpha is None else float(alpha) / rank
    if not math.isfinite(scale):
        raise WeightsError(f"{path} has no usable alpha for {own.keys[0]}: {alpha}")
    return LowRank(down=down, up=up, scale=scale)


def _check_shape(parameter: str, own: _Found, shape: tuple[int, ...], path: Path) -> None:
    size = math.prod(shape)
    down, up, difference = (own.tensors.get(kind) for kind in (DOWN, UP, DIFFERENCE))
    fits = difference is None or difference.numel() == size
    if down is not None and up is not None:
        outputs, inputs = shape[0], size // shape[0]
        fits &= up.shape[0] == outputs and up[0].numel() == len(down) and down[0].numel() == inputs
    if not fits:
        found = " and ".join(str(tuple(each.shape)) for each in (down, up, difference) if each is not None)
        raise WeightsError(f"{path} is for another network: {own.keys[0]} has {found}, {parameter} here is {shape}")


def _opened(path: Path) -> tuple[Path, Callable[[int], float]]:
    """The file with the tensors, and the factor of corrections of rank r that come without an alpha."""
    config: dict[str, Any] = {}
    if path.is_dir():
        config = _config(path / "adapter_config.json")
        names = ("adapter_model.safetensors", "adapter_model.bin", "pytorch_lora_weights.safetensors")
        file = next((path / name for name in names if (path / name).is_file()), None)
        if file is None:
            raise WeightsError(f"{path} holds no LoRA: expected one of {', '.join(names)}")
        path = file
    elif path.suffix == ".safetensors":
        config = _metadata(path)
    alpha, stabilised = config.get("lora_alpha"), config.get("use_rslora", False)

    def factor(rank: int) -> float:
        if alpha is None:
            return 1.0
        return float(alpha) / (math.sqrt(rank) if stabilised else rank)  # Kalajdzievski 2023, "rank stabilization"

    return path, factor


def _config(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise WeightsError(f"{path} is damaged ({error})") from error


def _metadata(path: Path) -> dict[str, Any]:
    """PEFT's settings of the transformer from the header of a file that diffusers has written, if it has them."""
    try:
        with safe_open(path, framework="pt") as file:
            told = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is missing, damaged or no safetensors file ({error})") from error
    return {key.removeprefix("transformer."): value for key, value in told.items()}


def corrected(name: str, weight: Tensor, loras: Sequence[tuple[Lora, float]]) -> Tensor:
    """A parameter corrected by LoRAs at their scales, summed in fp32; the same bits if all scales are 0."""
    total = weight.float()
    for lora, scale in loras:
        difference = lora.difference(name, weight) if scale else None
        if difference is not None:
            total = total + scale * difference
    return total.to(weight.dtype)


def merged_tensors(
    tensors: Mapping[str, ForeignTensor], loras: Sequence[tuple[Lora, float]]
) -> dict[str, ForeignTensor]:
    """A network's tensors with LoRAs merged into them at given scales, each tensor when it is read."""
    return {
        name: ForeignTensor(
            shape=tensor.shape, read=lambda name=name, tensor=tensor: corrected(name, tensor.read(), loras)
        )
        for name, tensor in tensors.items()
    }


def lora_file(path: Path) -> Path:
    """The file of a LoRA, which may be in PEFT's folder. Raises as `read_lora`."""
    return _opened(path)[0]

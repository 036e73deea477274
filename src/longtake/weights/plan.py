"""Memory plan of a model on a device: placement of its parts and their bytes, computed from sizes before loading.

The peak is the sum of what stays (weights, keys and values, text memory, codec state) and the largest temporary phase
(a pass, rebuilding memory, decoding, encoding a prompt). Counts are exact but for the working memory of a pass through
a net (`WORKING`), and a tenth is added for the allocator. `longtake bench` reports the memory that was used.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import product

import torch

from longtake.core.configs import CodecConfig, DiTConfig, Preset
from longtake.core.errors import DeviceError
from longtake.core.shapes import PictureSize
from longtake.nets.codec import CodecSettings, codec_for
from longtake.nets.dit import DiT
from longtake.nets.float8 import has_float8

GIB = 2**30
UMT5_BYTES = {"bf16": 11_361_820_672, "int8": 6_731_857_920}  # 5.68 billion parameters, the embedding always in bf16
KEPT_WORDINGS = 5  # prompts whose memory `Sampler` keeps: two of a fade, those around it, and the negative prompt
# Number of values in a codec's streaming state per pixel of a frame, and in its working memory per pixel that it
# decodes at once: Wan's decodes the frames of a latent frame at once, the others those of a chunk.
CODEC_STATE = {"wan": 2365, "light": 84, "coarse": 23}
WORKING = {"wan": 4 * 96, "light": 3 * 64, "coarse": 3 * 12}
HEADROOM = 1.1
MOST_SPARE = 8 * GIB
LARGE = 100_000_000  # number of parameters above which a network computes in bf16 on a GPU
CUDA_CONTEXT = 600 * 2**20
SMALLER = (0.77, 0.58, 0.46, 0.38)  # sides that are proposed where a size does not fit: 640x368 of 832x480, ...


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Devices and precisions of a model's parts."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    window: int  # window in latent frames
    text_device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    text_int8: bool = False
    fp8: bool = False  # 8-bit linear layers in the network's blocks
    text_stays: bool = True  # keep the text encoder loaded; False: load it for each new prompt and drop it


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """A placement and its memory use."""

    preset: Preset
    placement: Placement
    size: PictureSize
    memory: int  # available bytes
    parts: dict[str, int]  # bytes of each part that stays
    phases: dict[str, int]  # additional bytes of each temporary phase; phases do not overlap

    @property
    def peak_bytes(self) -> int:
        """Largest memory use on the device in bytes, with headroom."""
        most = sum(self.parts.values()) + max(self.phases.values())
        return round(most * HEADROOM) + (CUDA_CONTEXT if self.placement.device.type == "cuda" else 0)

    @property
    def spare_bytes(self) -> int:
        """Bytes left over on a GPU for snapshots of takes, at most `MOST_SPARE`; 0 on a CPU."""
        return max(0, min(self.memory - self.peak_bytes, MOST_SPARE)) if self.placement.device.type == "cuda" else 0

    def told(self) -> str:
        """Description of the plan in one line."""
        placed, preset = self.placement, self.preset
        precision = ("fp8 and " if placed.fp8 else "") + str(placed.dtype).removeprefix("torch.")
        told = f"{preset.name} on {placed.device}: {precision}, window {placed.window}, codec {preset.codec.kind}"
        if preset.text == "umt5":
            kept = "kept" if placed.text_stays else "read anew for each new prompt"
            told += f", text encoder on {placed.text_device} in {'int8' if placed.text_int8 else 'bf16'}, {kept}"
        return f"{told}; about {self.peak_bytes / GIB:.1f} GiB"


def plan(
    preset: Preset,
    device: torch.device,
    memory: int,
    size: PictureSize | None = None,
    *,
    teacher: bool = False,
    fp8: bool = False,
) -> MemoryPlan:
    """The best placement that fits into the memory.

    Given up in this order: precision of the text encoder, its staying on the device while chunks are made, its
    placement on the device; then chunks of the window.

    Args:
        preset: preset of the model.
        device: device of the network. On a CPU, all parts are placed there in fp32.
        memory: available bytes.
        size: picture size; None: the preset's own.
        teacher: whether the teacher is placed, which makes whole clips without a cache.
        fp8: whether linear layers are stored in 8 bits.

    Raises:
        DeviceError: nothing fits; the message gives the least memory that is needed, and the nearest that fits.
    """
    size = size or preset.size
    made = _least(preset, device, memory, size, teacher=teacher, fp8=fp8)
    if made.peak_bytes <= memory:
        return made
    raise DeviceError(
        f"{preset.name} at {size} needs at least {made.peak_bytes / GIB:.1f} GiB, {device} has {memory / GIB:.1f} GiB "
        f"free; {_nearest(preset, device, memory, size, teacher=teacher, fp8=fp8)}"
    )


def _nearest(preset: Preset, device: torch.device, memory: int, size: PictureSize, *, teacher: bool, fp8: bool) -> str:
    """Advice where nothing fits: the largest pictures for which something does, in 8 bits only if it must be."""
    unit = preset.codec.stride.space * preset.dit.patch
    sides = [[max(unit, round(side * share / unit) * unit) for side in (size.height, size.width)] for share in SMALLER]
    sizes = [size, *(PictureSize(height=height, width=width) for height, width in sides)]
    for smaller, in_8_bits in product(sizes, (fp8,) if fp8 else (False, True)):
        made = _least(preset, device, memory, smaller, teacher=teacher, fp8=in_8_bits)
        if made.peak_bytes <= memory:
            flags = f"--size {smaller}" * (smaller != size) + " --fp8" * (in_8_bits and not fp8)
            light = "; the light codec (taew2_1) needs less" * (preset.codec.kind == "wan")
            return f"the nearest that fits is {flags.strip()} ({made.peak_bytes / GIB:.1f} GiB){light}"
    weights = footprint(preset, Placement(window=preset.stream.window, dtype=torch.bfloat16, fp8=True), size)[0][
        "network"
    ]
    return f"no size of picture fits: the network alone takes {weights / GIB:.1f} GiB in 8 bits; take a smaller model"


def _least(
    preset: Preset, device: torch.device, memory: int, size: PictureSize, *, teacher: bool, fp8: bool
) -> MemoryPlan:
    """The best placement that fits, see `plan`; if none does, the one that needs the least memory."""
    chunk, sink = preset.stream.chunk, preset.stream.sink
    windows = range(preset.stream.window, 2 * chunk + sink - 1, -chunk) or range(preset.stream.window, 0, -chunk)
    on_cpu = Placement(device=device, window=preset.stream.window, fp8=fp8)
    texts = [on_cpu]
    if device.type != "cpu":
        large = num_parameters(preset.dit) > LARGE
        texts = [replace(on_cpu, dtype=torch.bfloat16 if large else torch.float32)]
        if preset.text == "umt5":
            here = replace(texts[0], text_device=device)
            in_bytes = replace(here, text_int8=True)
            texts = [here, in_bytes, replace(in_bytes, text_stays=False), *texts]
    least: MemoryPlan | None = None
    for window, text in product(windows[:1] if teacher else windows, texts):
        placement = replace(text, window=window)
        parts, phases = footprint(preset, placement, size, teacher=teacher)
        made = MemoryPlan(preset=preset, placement=placement, size=size, memory=memory, parts=parts, phases=phases)
        if made.peak_bytes <= memory:
            return made
        least = min(made, least or made, key=lambda p: p.peak_bytes)
    assert least is not None
    return least


def footprint(
    preset: Preset, placement: Placement, size: PictureSize, *, teacher: bool = False
) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes on the device: those that stay, by part, and additional ones, by temporary phase."""
    dit, item, stream = preset.dit, placement.dtype.itemsize, preset.stream
    height, width = preset.latent_grid(size)
    per_frame = height * width // dit.patch**2
    own = (preset.clip_latent_frames if teacher else stream.chunk) * per_frame
    past = 0 if teacher else (placement.window - stream.chunk) * per_frame
    kv = 2 * dit.num_layers * dit.dim * past * item
    frames = preset.codec.stride.time * (1 if preset.codec.kind == "wan" else stream.chunk)
    patch = preset.codec.pixel_patch**2 if isinstance(preset.codec, CodecConfig) else 1
    pixels = size.height * size.width * item // patch
    state = CODEC_STATE[preset.codec.kind] * pixels
    a_pass = own * (2 * dit.ffn_dim + 12 * dit.dim) * item + 2 * (own + past) * dit.dim * item
    linear = dit.num_layers * (8 * dit.dim + 2 * dit.ffn_dim) * dit.dim  # number of linear weights of all blocks
    parts = {
        "network": num_parameters(dit) * item - (linear * (item - 1) if placement.fp8 else 0),
        "codec": num_parameters(preset.codec) * item,
        "what the codec remembers": state,
        "text memory": KEPT_WORDINGS * 2 * dit.num_layers * dit.text_len * dit.dim * item,
        "keys and values": kv,
    }
    phases = {
        "a pass, with all keys joined and rotated": a_pass + kv,
        "the same while memory is rebuilt": a_pass + 2 * kv,
        "decoding": 2 * state + WORKING[preset.codec.kind] * frames * pixels,
    }
    if preset.text == "umt5" and placement.text_device == placement.device:
        (parts if placement.text_stays else phases)["text encoder"] = text_bytes(placement)
    return parts, phases


@lru_cache(maxsize=64)
def num_parameters(config: DiTConfig | CodecSettings) -> int:
    """Number of parameters of the net of a configuration, without allocating its weights."""
    with torch.device("meta"):
        net = DiT(config) if isinstance(config, DiTConfig) else codec_for(config)
    return sum(p.numel() for p in net.parameters())


def text_bytes(placement: Placement) -> int:
    """Bytes of UMT5-XXL in the precision of the placement."""
    return UMT5_BYTES["int8" if placement.text_int8 else "bf16"]


def plan_for(
    preset: Preset,
    device: str | None = None,
    size: PictureSize | None = None,
    *,
    teacher: bool = False,
    fp8: bool = False,
) -> MemoryPlan:
    """The best placement of a model on a device of this machine, given the memory that is free now.

    Args:
        preset: preset of the model.
        device: "cpu", "cuda", "cuda:1"; None: the first GPU if there is one. On a CPU, memory is not checked.
        size: picture size; None: the preset's own.
        teacher: whether the teacher is placed, which makes whole clips without a cache.
        fp8: whether linear layers are stored in 8 bits.

    Raises:
        DeviceError: there is no such device, its memory is too small, or `fp8` is set and it has no 8-bit floats.
    """
    place = device_named(device)
    if fp8 and not has_float8(place):
        raise DeviceError(f"{place} cannot multiply in 8 bits (Ada, Hopper and newer can); leave fp8 out")
    free = sys.maxsize if place.type == "cpu" else torch.cuda.mem_get_info(place)[0]
    return plan(preset, place, free, size, teacher=teacher, fp8=fp8)


def device_named(device: str | None) -> torch.device:
    """Device of this machine with a name; None: the first GPU if there is one, else the CPU.

    Raises:
        DeviceError: there is no such device.
    """
    try:
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as err:
        raise DeviceError(f'"{device}" is no device; give "cpu", "cuda" or "cuda:1"') from err
    if place.type != "cpu" and (place.type != "cuda" or (place.index or 0) >= torch.cuda.device_count()):
        raise DeviceError(f'device "{device}" was asked for, but this torch sees no such device; use "cpu"')
    return place


@contextmanager
def memory_advice(name: str) -> Iterator[None]:
    """Context that converts an out-of-memory error of torch into one with advice.

    Raises:
        DeviceError: the device's memory ran out.
    """
    try:
        yield
    except torch.OutOfMemoryError as err:
        raise DeviceError(
            f"the device's memory is full; see what {name} needs with: longtake models plan {name}; "
            "take smaller pictures, the light codec, or close what else runs there"
        ) from err

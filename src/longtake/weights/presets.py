"""Available models, and loading a model's nets with weights checked against its manifest."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from types import MappingProxyType

import torch
from jaxtyping import Float
from platformdirs import user_data_path
from torch import Tensor

from longtake.core.configs import Preset
from longtake.core.errors import WeightsError
from longtake.core.noise import noise_for
from longtake.core.shapes import PictureSize
from longtake.core.vocabulary import Vocabulary
from longtake.nets.codec import Codec, codec_for
from longtake.nets.dit import DiT
from longtake.nets.float8 import in_float8
from longtake.nets.low_rank import corrected
from longtake.nets.text import MiniLMEncoder, TextEncoder, UMT5Encoder
from longtake.weights.checkpoint import load_into, read_weights
from longtake.weights.live_loras import LiveLoras, LoraChoice
from longtake.weights.manifest import TEXT, check_digest, net_files, read_manifest, read_vocabulary
from longtake.weights.plan import MemoryPlan, Placement, device_named, memory_advice, num_parameters, plan_for
from longtake.weights.wan.presets import STUDENTS, WANS, student_preset


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """Information on a model that `longtake models` shows."""

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
    text_encoder: TextEncoder
    digest: str  # hash of network, codec and UMT5, with their precision and the window where these are not the default
    plan: MemoryPlan
    source_adapter: DiT | None = None  # version of the student that follows a source video, if the model has one
    vocabulary: Vocabulary | None = None  # vocabulary that it was trained on, if its manifest has one
    loras: LiveLoras | None = None  # LoRAs whose scales may change, if it was opened with any


def packaged_models() -> Path:
    """Folder of the models that ship inside the package."""
    return Path(str(resources.files("longtake.weights") / "data"))


def home() -> Path:
    """Folder for imported models and caches: LONGTAKE_HOME, or the user's data folder."""
    folder = os.environ.get("LONGTAKE_HOME")
    return Path(folder) if folder else user_data_path("longtake")


def imported_models() -> Path:
    """Folder that models are imported into."""
    return home() / "models"


def model_folder(name: str) -> Path:
    """Folder of a model, given its packaged or imported name, or the folder itself.

    Raises:
        WeightsError: `name` is neither.
    """
    if (folder := packaged_or_imported(name)) is not None:
        return folder
    if Path(name).is_dir():
        return Path(name)
    if name in WANS or name in STUDENTS:
        raise WeightsError(f"{name} is not here yet; fetch and convert it with: longtake models import {name}")
    known = ", ".join(info.name for info in list_models())
    raise WeightsError(f'no model "{name}": give a model folder or one of: {known or "(none)"}')


def packaged_or_imported(name: str) -> Path | None:
    """Folder of a packaged or imported model; None if there is none of that name."""
    folders = (folder / name for folder in (packaged_models(), imported_models()))
    return next((folder for folder in folders if (folder / "manifest.json").is_file()), None)


def preset_named(name: str) -> Preset:
    """Preset of a model; of a known published model also if it has not been imported.

    Raises:
        WeightsError: there is no such model.
    """
    if packaged_or_imported(name) is None and name in WANS:
        return WANS[name]
    if packaged_or_imported(name) is None and name in STUDENTS:
        return student_preset(name)
    return read_manifest(model_folder(name))[0]


def list_models() -> list[ModelInfo]:
    """Information on the packaged and the imported models."""
    folders = (packaged_models(), imported_models())
    return [describe(path.parent) for folder in folders for path in sorted(folder.glob("*/manifest.json"))]


def describe(folder: Path) -> ModelInfo:
    """Information on a model folder, without loading weights.

    Raises:
        WeightsError: the manifest is missing or damaged.
    """
    preset, sha256 = read_manifest(folder)
    files = {str(p.relative_to(folder)): p.stat().st_size for n in sha256 for p in net_files(folder, n)}
    network = num_parameters(preset.dit)
    sizes = {"student": network, "teacher": network, "codec": num_parameters(preset.codec)}
    return ModelInfo(
        name=preset.name,
        description=preset.description,
        path=folder,
        files=files,
        parameters={name: sizes[name] for name in sha256 if name in sizes},
        sha256=sha256,
    )


def open_nets(
    name: str,
    *,
    teacher: bool = False,
    device: str | None = None,
    size: PictureSize | None = None,
    fp8: bool = False,
    loras: Mapping[str, LoraChoice] = MappingProxyType({}),
) -> Nets:
    """Load a model's network (the student, or the teacher), its codec and its text encoder, and LoRAs for it by name.

    Raises:
        WeightsError: the model is unknown, incomplete, damaged, or made for another network; or a LoRA cannot be used.
        InputError: there are too many LoRAs.
        DeviceError: the device is not there, its memory is too small, or `fp8` is set and it has no 8-bit floats.
    """
    folder = model_folder(name)
    preset, sha256 = read_manifest(folder)
    planned = plan_for(preset, device, size, teacher=teacher, fp8=fp8)
    placement = planned.placement
    kind = "teacher" if teacher else "student"
    digest = f"{check_digest(folder, kind, sha256)[:16]}-{check_digest(folder, 'codec', sha256)[:16]}"
    with torch.device("meta"):
        dit = DiT(preset.dit)
    codec = codec_for(preset.codec)
    load_into(dit, read_weights(folder, kind), f"{kind} in {folder}", placement.dtype)
    load_into(codec, read_weights(folder, "codec"), f"codec in {folder}")
    source_adapter = (
        _source_adapter(folder, preset, sha256, placement.dtype) if "source_adapter" in sha256 and not teacher else None
    )
    with memory_advice(preset.name):
        _settled(dit, codec, placement)
        if source_adapter is not None:
            _settled(source_adapter, codec, placement)
    live = None
    if loras:
        if placement.fp8:
            raise WeightsError("LoRAs cannot be kept apart from layers in 8 bits: merge them with models import --lora")
        live = LiveLoras(loras, [dit] if source_adapter is None else [dit, source_adapter])
        digest += "".join(f"-{name}@{loras[name].scale:g}:{live.digests[name][:16]}" for name in sorted(loras))
    encoder = _text_encoder(
        folder,
        preset,
        sha256,
        device=placement.text_device,
        int8=placement.text_int8,
        keep=placement.text_stays,
    )
    if placement.window != preset.stream.window:
        digest += f"-window{placement.window}"
        preset = replace(preset, stream=replace(preset.stream, window=placement.window))
    if placement.dtype != torch.float32:
        digest += f"-{str(placement.dtype).removeprefix('torch.')}"
    if placement.fp8:
        digest += "-fp8"
    if preset.text == "umt5":
        digest += f"-{sha256[TEXT][:16]}" + ("-int8" if placement.text_int8 else "")
    return Nets(
        preset=preset,
        dit=dit,
        codec=codec,
        text_encoder=encoder,
        digest=digest,
        plan=planned,
        source_adapter=source_adapter,
        vocabulary=read_vocabulary(folder),
        loras=live,
    )


def _source_adapter(folder: Path, preset: Preset, sha256: dict[str, str], dtype: torch.dtype) -> DiT:
    """The source adapter: the student with the source adapter's corrections and its embedding of a source."""
    check_digest(folder, "source_adapter", sha256)
    with torch.device("meta"):
        dit = DiT(preset.dit)
        dit.add_source()
    tensors = corrected(read_weights(folder, "student"), read_weights(folder, "source_adapter"))
    load_into(dit, tensors, f"source adapter in {folder}", dtype)
    return dit


@dataclass(frozen=True, kw_only=True)
class OpenCodec:
    """A model's codec alone, frozen, with the model's preset and the codec's hash."""

    preset: Preset
    codec: Codec
    sha256: str


def open_codec(name: str, device: str = "cpu") -> OpenCodec:
    """Load a model's codec.

    Raises:
        WeightsError: the model is unknown, or its codec is missing or damaged.
        DeviceError: the device is not there.
    """
    folder = model_folder(name)
    preset, sha256 = read_manifest(folder)
    codec = codec_for(preset.codec)
    digest = check_digest(folder, "codec", sha256)
    load_into(codec, read_weights(folder, "codec"), f"codec in {folder}")
    codec.to(device_named(device)).eval().requires_grad_(requires_grad=False)
    return OpenCodec(preset=preset, codec=codec, sha256=digest)


def random_nets(
    preset: Preset, *, device: str | None = None, size: PictureSize | None = None, fp8: bool = False
) -> Nets:
    """The nets of a preset with random weights, for timing; their output is meaningless.

    The text encoder is replaced by `RandomStates`.
    """
    planned = plan_for(replace(preset, text="minilm"), device, size, fp8=fp8)
    placement = planned.placement
    preset = replace(preset, stream=replace(preset.stream, window=placement.window))
    with torch.device("meta"):
        dit = DiT(preset.dit).to(placement.dtype)
    dit.to_empty(device=placement.device)
    rng = torch.Generator(placement.device).manual_seed(0)
    for p in dit.parameters():
        p.data.normal_(std=0.02, generator=rng)
    codec = codec_for(preset.codec)
    _settled(dit, codec, placement)
    encoder = RandomStates(preset.dit.text_len, preset.dit.text_dim)
    return Nets(preset=preset, dit=dit, codec=codec, text_encoder=encoder, digest="random", plan=planned)


class RandomStates:
    """Stand-in for a text encoder where only time is measured."""

    def __init__(self, text_len: int, dim: int) -> None:
        self.text_len, self.dim = text_len, dim

    def __call__(self, prompt: str) -> Float[Tensor, "1 1 t e"]:
        """Random text states: one row per token, the other rows are zero."""
        states = noise_for(0, ("text", prompt), (1, 1, self.text_len, self.dim))
        states[:, :, self.num_tokens(prompt) :] = 0
        return states

    def each(self, prompts: Sequence[str]) -> Iterator[Float[Tensor, "t e"]]:
        """Yield the text states of each prompt."""
        return (self(prompt)[0, 0] for prompt in prompts)

    def num_tokens(self, prompt: str) -> int:
        """Number of words plus the end token."""
        return len(prompt.split()) + 1


def check_model(folder: Path) -> None:
    """Compare every byte of a model with its manifest.

    Raises:
        WeightsError: a part is missing or damaged; the message names it.
    """
    _, sha256 = read_manifest(folder)
    for name in sha256:
        check_digest(folder, name, sha256, whole=True)


def open_text_encoder(name: str, device: torch.device) -> TextEncoder:
    """Load a model's text encoder.

    Raises:
        WeightsError: the model is unknown, or its text encoder is missing or damaged.
    """
    folder = model_folder(name)
    preset, sha256 = read_manifest(folder)
    return _text_encoder(folder, preset, sha256, device=device, int8=False, keep=True)


def _text_encoder(
    folder: Path, preset: Preset, sha256: dict[str, str], *, device: torch.device, int8: bool, keep: bool
) -> TextEncoder:
    if preset.text == "minilm":
        return MiniLMEncoder(preset.dit.text_len)
    return UMT5Encoder(
        folder / TEXT,
        preset.dit.text_len,
        cache=home() / "text" / check_digest(folder, TEXT, sha256)[:16],
        device=device,
        int8=int8,
        keep=keep,
    )


def _settled(dit: DiT, codec: Codec, placement: Placement) -> None:
    """Place the network and the codec on the device in the placement's precision, and freeze them."""
    if placement.fp8:
        in_float8(dit)
    dit.to(placement.device)
    codec.to(placement.device, placement.dtype)
    for net in (dit, codec):
        net.eval().requires_grad_(requires_grad=False)

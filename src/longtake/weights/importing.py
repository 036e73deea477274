"""Import of a published checkpoint as a model folder: converted once to safetensors, described by a manifest.

    student or teacher     the transformer, under original Wan names
    codec                  Wan's own, or the light codec made for its latents
    text/                  UMT5 and its tokenizer, in the layout of transformers

Parts that the source lacks come from files given separately, or from a model imported before, whose files are linked
and not copied: five students of one Wan share one text encoder on disk. LoRAs are merged into the transformer; they may
also be merged into a model folder, of which all other files are linked.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError

from longtake.core.configs import Preset, SamplingConfig, StreamConfig
from longtake.core.errors import WeightsError
from longtake.nets.codec import codec_for
from longtake.nets.dit import DiT
from longtake.weights.checkpoint import check_fits, digest, link_files, save_weights, weight_files, write_json
from longtake.weights.foreign import Contents, entry_of, found, is_distilled, tensors_of, wan_checkpoint
from longtake.weights.lora import lora_file, merged_tensors, read_lora
from longtake.weights.manifest import TEXT, net_files, read_manifest, read_vocabulary, write_manifest
from longtake.weights.recognise import codec_config, dit_config
from longtake.weights.tensor_files import ForeignTensor
from longtake.weights.wan.names import vae_tensors
from longtake.weights.wan.presets import STUDENTS, WANS, student_preset
from longtake.weights.wan.umt5_names import UMT5_XXL, umt5_tensors

SHARD_BYTES = 2 * 10**9

# Paths of the parts in published folders, the likeliest first.
CODECS = ("Wan2.1_VAE.pth", "vae/diffusion_pytorch_model.safetensors", "taew2_1.pth", "taew2_1.safetensors")
TEXTS = ("models_t5_umt5-xxl-enc-bf16.pth", "text_encoder")
TOKENIZERS = ("google/umt5-xxl", "tokenizer")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "spiece.model")

Progress = Callable[[str, int, int, Mapping[str, float]], None]  # (part, done, of, metrics) -> None


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointSource:
    """Paths of a model's parts; a codec or text encoder that is None is taken from `base`."""

    network: Path  # file or folder of the transformer
    student: str | None = None  # name of the published student; None: see `sampling`
    sampling: SamplingConfig | None = None  # sampling of a student without a name; None: it has a name, or is a teacher
    stream: StreamConfig | None = None  # chunk, window and sink, where they are not those of the named student
    key: str | None = None  # entry of the file that holds the network; None: as the named student has it
    is_teacher: bool = False  # whether it is a bidirectional model, whatever its names look like
    codec: Path | None = None
    text: Path | None = None  # text encoder: a folder in the layout of transformers, or the original .pth
    tokenizer: Path | None = None
    base: Path | None = None  # folder of a model imported before
    loras: tuple[tuple[Path, float], ...] = ()  # LoRAs to merge into the network, and their scales

    @property
    def is_student(self) -> bool:
        """Whether the network is causal."""
        return self.student is not None or self.sampling is not None


def import_model(
    source: CheckpointSource,
    folder: Path,
    progress: Progress,
    dtype: torch.dtype = torch.bfloat16,
    tell: Callable[[str], object] = lambda _: None,
) -> Path:
    """Convert a published model into `folder` and return the folder; all parts are checked before anything is written.

    Args:
        source: paths of its parts.
        folder: folder of the new model; must not exist.
        progress: called with (part, done, of, metrics) while tensors are converted.
        dtype: precision of the stored network. A converted codec is stored in fp32, a converted UMT5 in bf16; a model
            folder into which LoRAs are merged keeps its precision.
        tell: receives a line on each LoRA: what it corrects, and what of it is left out.

    Raises:
        WeightsError: the folder exists; a part is missing, damaged or of the wrong kind; or the disk is full. Nothing
            is left in `folder`.
    """
    if folder.exists():
        raise WeightsError(f"{folder} is there already; give another --name, or remove it first")
    with _appearing(folder) as part:
        if (source.network / "manifest.json").is_file():
            _merge_into_model(source, part, folder.name, progress, tell)
            return folder
        parts = _checked(source, folder.name, tell)
        network = _with_loras(parts.network, source.loras, tell)
        net = "student" if source.is_student else "teacher"
        save_weights(part, net, _contents(network, net, progress), dtype, SHARD_BYTES)
        if parts.codec is None:
            link_files(net_files(parts.base, "codec"), part)
        else:
            save_weights(part, "codec", _contents(parts.codec, "codec", progress), torch.float32, SHARD_BYTES)
        _import_text(parts, part / TEXT, progress)
        write_manifest(part, parts.preset, _provenance(source))
    return folder


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A folder to write to, which becomes `folder` at the end; nothing is left of it after an error.

    Raises:
        WeightsError: it cannot be written.
    """
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        part.replace(folder)
    except (OSError, SafetensorError) as err:
        raise WeightsError(f"{folder} cannot be written: {err}") from err
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _provenance(source: CheckpointSource) -> dict[str, object]:
    loras = [{"file": str(path), "scale": scale, "sha256": digest([lora_file(path)])} for path, scale in source.loras]
    return {"source": str(source.network), "student": source.student, **({"loras": loras} if loras else {})}


def _with_loras(
    network: Mapping[str, ForeignTensor], loras: Sequence[tuple[Path, float]], tell: Callable[[str], object]
) -> dict[str, ForeignTensor]:
    """A network's tensors with LoRAs merged into them; raises as `read_lora`."""
    shapes, read = _shapes(network), []
    for path, scale in loras:
        lora = read_lora(path, shapes)
        tell(f"{path.name} at {scale:g}: {lora.told}")
        read.append((lora, scale))
    return merged_tensors(network, read)


def _merge_into_model(
    source: CheckpointSource, part: Path, name: str, progress: Progress, tell: Callable[[str], object]
) -> None:
    """Write a model folder with LoRAs merged into its networks; its other files are linked.

    The student and the teacher both get them. A source adapter, which corrects the student, stays as it is.
    """
    if not source.loras:
        raise WeightsError(f"{source.network} is a longtake model: open it by this path, or give --lora to merge")
    preset, sha256 = read_manifest(source.network)
    for net in sha256:
        files = net_files(source.network, net)
        if net in ("student", "teacher"):
            network = {key: tensor for file in files for key, tensor in tensors_of(file).items()}
            dtype = next(iter(network.values())).read().dtype
            merged = _with_loras(network, source.loras, tell)
            limit = SHARD_BYTES if preset.text == "umt5" else None
            save_weights(part, net, _contents(merged, net, progress), dtype, limit)
        elif net == TEXT:
            (part / TEXT).mkdir()
            link_files(sorted((source.network / TEXT).iterdir()), part / TEXT)
        else:
            link_files(files, part)
    preset = replace(preset, name=name)
    write_manifest(part, preset, _provenance(source), read_vocabulary(source.network))


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Checked parts of a model, under the names they will have; no tensor has been read yet."""

    preset: Preset
    network: Mapping[str, ForeignTensor]
    codec: Mapping[str, ForeignTensor] | None  # tensors to convert; None: the base's codec
    text: Mapping[str, ForeignTensor] | Path | None  # tensors to convert, or a folder to link; None: the base's
    tokenizer: list[Path]
    base: Path  # model folder that missing parts are taken from


def _checked(source: CheckpointSource, name: str, tell: Callable[[str], object]) -> Parts:
    """Find all parts and check their names, their shapes and whether they fit together."""
    _check_student(source)
    preferred = None if source.student is None else STUDENTS[source.student].key
    key = source.key or entry_of(found(source.network), preferred)
    network = wan_checkpoint(source.network, key)
    if key is not None:
        tell(f"{source.network.name}: the network of its entry {key}")
    dit = dit_config(_shapes(network), _num_heads(source.network), str(source.network))
    with torch.device("meta"):
        check_fits(DiT(dit), _shapes(network), str(source.network))
    preset = replace(_preset_for(source, dit.dim), dit=dit, name=name)
    if source.stream is not None:
        preset = replace(preset, stream=source.stream)
    missing = [part for part in ("codec", "text") if getattr(source, part) is None]
    if missing and source.base is None:
        raise WeightsError(f"{source.network} comes without a {missing[0]}: give --{missing[0]}, or --base MODEL")
    base = source.base or source.network
    codec, text, tokenizer = None, None, []
    if source.codec is None:
        based_on = read_manifest(base)[0]
        config = based_on.codec
    else:
        codec = vae_tensors(tensors_of(source.codec))
        config = codec_config(_shapes(codec), str(source.codec))
        with torch.device("meta"):
            check_fits(codec_for(config), _shapes(codec), str(source.codec))
    if config.latent_channels != dit.in_dim:
        raise WeightsError(f"the codec has {config.latent_channels} channels, the network {dit.in_dim}")
    if source.text is None:
        if not net_files(base, TEXT):
            raise WeightsError(f"{base} has no UMT5 encoder to be taken from it: give --text")
    else:
        text = source.text if source.text.is_dir() else umt5_tensors(tensors_of(source.text))
        width = _text_width(text, source.text)
        if width != dit.text_dim:
            raise WeightsError(f"{source.text} has states of width {width}, the network reads {dit.text_dim}")
        tokenizer = _tokenizer_files(source, source.text)
    return Parts(
        preset=replace(preset, codec=config), network=network, codec=codec, text=text, tokenizer=tokenizer, base=base
    )


def _text_width(text: Mapping[str, ForeignTensor] | Path, path: Path) -> int:
    """Width of an encoder's text states; raises WeightsError if it is not UMT5."""
    if not isinstance(text, Path):
        return _umt5_sizes(_shapes(text), path)["d_model"]
    try:
        config = json.loads((text / "config.json").read_text())
        kind, width = config["model_type"], config["d_model"]
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise WeightsError(f"{text} holds no encoder: its config.json is missing or damaged ({err})") from err
    if kind != "umt5":
        raise WeightsError(f"{text} holds a {kind}; Wan reads umt5")
    if not weight_files(text, "model"):
        raise WeightsError(f"{text} holds no model.safetensors; give the folder of a UMT5 encoder")
    return int(width)


def _tokenizer_files(source: CheckpointSource, text: Path) -> list[Path]:
    beside = text if text.is_dir() else text.parent
    folders = [source.tokenizer] if source.tokenizer else [beside, *(beside / name for name in TOKENIZERS)]
    for folder in folders:
        files = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
        if any(file.name in ("tokenizer.json", "spiece.model") for file in files):
            return files
    raise WeightsError(f"{folders[0]} holds no tokenizer (tokenizer.json or spiece.model); give --tokenizer FOLDER")


def parts_of(folder: Path, student: str | None = None, base: Path | None = None) -> CheckpointSource:
    """Paths of the parts that a published folder holds.

    Raises:
        WeightsError: the folder lacks the LoRA that belongs to the student.
    """

    def first(names: tuple[str, ...]) -> Path | None:
        return next((folder / name for name in names if (folder / name).exists()), None)

    network, loras = folder, ()
    if student is not None and (folder / STUDENTS[student].file).is_file():
        network = folder / STUDENTS[student].file
    if student is not None and (lora := STUDENTS[student].lora) is not None:
        beside = next((path for path in (folder / lora, folder.parent / Path(lora).name) if path.is_file()), None)
        loras = () if beside is None else ((beside, 1.0),)
    if not folder.is_dir():
        return CheckpointSource(network=network, student=student, base=base, loras=loras)
    return CheckpointSource(
        network=network,
        student=student,
        loras=loras,
        codec=first(CODECS),
        text=first(TEXTS),
        tokenizer=first(TOKENIZERS),
        base=base,
    )


def _check_student(source: CheckpointSource) -> None:
    """Raise WeightsError for a distilled student without a given name, and for one that is not causal."""
    if not (source.is_student or source.is_teacher) and is_distilled(found(source.network)):
        raise WeightsError(
            f"{source.network} looks like a causal student by its names: say which student it is, --student "
            f"{'|'.join(STUDENTS)}, or its noise levels, --sigmas; or that it is a bidirectional model, --teacher"
        )
    if source.student is not None and STUDENTS[source.student].lora is not None and not source.loras:
        raise WeightsError(
            f"{source.student} is a network and a LoRA ({STUDENTS[source.student].lora}): give both, --lora FILE"
        )
    file = found(source.network)
    if source.is_student and "bidirectional" in f"{file.parent.name}/{file.name}":
        raise WeightsError(
            f"{source.network} is a bidirectional few-step model by its name: it sees a whole clip at once and cannot "
            "go on from memory; give a causal student"
        )


def _preset_for(source: CheckpointSource, dim: int) -> Preset:
    if source.student is not None:
        known = WANS[STUDENTS[source.student].base].dit
        preset = student_preset(source.student)
        if dim in {wan.dit.dim for wan in WANS.values()} - {known.dim}:
            raise WeightsError(
                f"{source.student} has width {known.dim}, {source.network} has {dim}: is it this student?"
            )
        return preset
    own = next((wan for wan in WANS.values() if wan.dit.dim == dim), WANS["wan-1.3b"])
    if source.sampling is None:
        return own
    return replace(own, student=source.sampling, description=f"a causal student: {source.sampling.num_steps} steps")


def _import_text(parts: Parts, folder: Path, progress: Progress) -> None:
    folder.mkdir()
    if parts.text is None:
        link_files(sorted((parts.base / TEXT).iterdir()), folder)
        return
    if isinstance(parts.text, Path):
        link_files([p for p in sorted(parts.text.iterdir()) if p.suffix in (".json", ".safetensors")], folder)
    else:
        paths = save_weights(folder, "model", _contents(parts.text, "text", progress), torch.bfloat16, SHARD_BYTES)
        write_json(folder / "config.json", {**UMT5_XXL, **_umt5_sizes(_shapes(parts.text), folder)})
        if len(paths) > 1:
            write_json(folder / "model.safetensors.index.json", _index(paths))
    link_files([file for file in parts.tokenizer if not (folder / file.name).exists()], folder)


def _umt5_sizes(shapes: Mapping[str, tuple[int, ...]], path: Path) -> dict[str, int]:
    """Sizes for an encoder's config, derived from its tensors' shapes."""
    try:
        vocab, d_model = shapes["shared.weight"]
        inner, _ = shapes["encoder.block.0.layer.0.SelfAttention.q.weight"]
        buckets, heads = shapes["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        d_ff, _ = shapes["encoder.block.0.layer.1.DenseReluDense.wi_0.weight"]
    except (KeyError, ValueError) as err:
        raise WeightsError(f"{path} is no whole UMT5 encoder: {err} is missing or has another shape") from err
    layers = 1 + max(int(name.split(".")[2]) for name in shapes if name.startswith("encoder.block."))
    return {
        "vocab_size": vocab,
        "d_model": d_model,
        "d_kv": inner // heads,
        "d_ff": d_ff,
        "num_layers": layers,
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
    }


def _index(paths: list[Path]) -> dict[str, object]:
    names = {path.name: list(tensors_of(path)) for path in paths}
    return {"metadata": {}, "weight_map": {key: file for file, keys in names.items() for key in keys}}


def _num_heads(path: Path) -> int | None:
    """Number of heads from the config beside a network; None if there is no such entry."""
    config = found(path).parent / "config.json"
    if not config.is_file():
        return None
    try:
        told = json.loads(config.read_text())
        heads = told.get("num_heads") or told.get("num_attention_heads")
    except (ValueError, AttributeError) as err:
        raise WeightsError(f"{config} is damaged ({err})") from err
    return None if heads is None else int(heads)


def _shapes(tensors: Mapping[str, ForeignTensor]) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _contents(tensors: Mapping[str, ForeignTensor], name: str, progress: Progress) -> Contents:
    return Contents(tensors, lambda done: progress(name, done, len(tensors), {}))

"""A published checkpoint becomes a model folder: converted once to safetensors, described by a manifest.

    student or teacher     the transformer, under original Wan names
    codec                  Wan's own, or the light one made for its latents
    text/                  UMT5 and its tokenizer, as transformers keeps them

What the source does not hold comes from files that are named, or from a model that was imported before: its files are
linked, not copied, so that five students of one Wan cost the disk one text encoder.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from longtake.core.configs import CodecConfig, Preset, WanVAEConfig
from longtake.core.errors import WeightsError
from longtake.weights.checkpoint import save_weights, write_json
from longtake.weights.foreign import Contents, ForeignTensor, found, is_distilled, tensors_of, wan_checkpoint
from longtake.weights.manifest import TEXT, net_files, read_manifest, write_manifest
from longtake.weights.recognise import codec_config, dit_config
from longtake.weights.umt5_names import UMT5_XXL, umt5_tensors
from longtake.weights.wan_names import vae_tensors
from longtake.weights.wan_presets import STUDENTS, WANS, student_preset

SHARD_BYTES = 2 * 10**9

# Where published folders keep things, the likeliest first.
CODECS = ("Wan2.1_VAE.pth", "vae/diffusion_pytorch_model.safetensors", "taew2_1.pth", "taew2_1.safetensors")
TEXTS = ("models_t5_umt5-xxl-enc-bf16.pth", "text_encoder")
TOKENIZERS = ("google/umt5-xxl", "tokenizer")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "spiece.model")

Progress = Callable[[str, int, int, Mapping[str, float]], None]  # (what, done, of, figures)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where the parts of a model lie. What is None is taken from `base`."""

    network: Path  # a file, or a folder
    student: str | None = None  # which published student it is; None: a bidirectional model
    codec: Path | None = None
    text: Path | None = None  # of the encoder: HF folder, or the original .pth
    tokenizer: Path | None = None
    base: Path | None = None  # a model folder


def import_model(source: Source, folder: Path, progress: Progress, dtype: torch.dtype = torch.bfloat16) -> Path:
    """Convert a published model into `folder`.

    Args:
        source: where its parts lie.
        folder: of the new model; must not hold one.
        progress: told while tensors are converted.
        dtype: that weights are stored in.

    Raises:
        WeightsError: a part is missing, damaged, or something else than it should be. Nothing is left in `folder`.
    """
    if (folder / "manifest.json").exists():
        raise WeightsError(f"{folder} holds a model already; give another --name, or remove it first")
    _check_student(source)
    tensors = wan_checkpoint(source.network)
    dit = dit_config(_shapes(tensors), _num_heads(source.network), str(source.network))
    preset = replace(_preset_for(source, dit.dim), dit=dit, name=folder.name)
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        net = "student" if source.student else "teacher"
        save_weights(part, net, _contents(tensors, net, progress), dtype, SHARD_BYTES)
        preset = replace(preset, codec=_import_codec(source, part, progress, dtype, preset))
        _import_text(source, part, progress)
        write_manifest(part, preset, {"source": str(source.network), "student": source.student})
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def parts_of(folder: Path, student: str | None = None, base: Path | None = None) -> Source:
    """Find what a published folder holds."""

    def first(names: tuple[str, ...]) -> Path | None:
        return next((folder / name for name in names if (folder / name).exists()), None)

    network = folder
    if student is not None and (folder / STUDENTS[student].file).is_file():
        network = folder / STUDENTS[student].file
    if not folder.is_dir():
        return Source(network=network, student=student, base=base)
    return Source(
        network=network,
        student=student,
        codec=first(CODECS),
        text=first(TEXTS),
        tokenizer=first(TOKENIZERS),
        base=base,
    )


def _check_student(source: Source) -> None:
    """Refuse a student that is not said to be one, and one that is not causal."""
    if source.student is None and is_distilled(found(source.network)):
        raise WeightsError(
            f"{source.network} holds the generator of a distillation: say which student it is, --student "
            f"{'|'.join(STUDENTS)}"
        )
    if source.student is not None and "bidirectional" in str(source.network):
        raise WeightsError(
            f"{source.network} is a bidirectional few-step model by its name: it sees a whole clip at once and cannot "
            "go on from memory; give a causal student"
        )


def _preset_for(source: Source, dim: int) -> Preset:
    if source.student is not None:
        known = WANS[STUDENTS[source.student].base].dit
        preset = student_preset(source.student)
        if dim in {wan.dit.dim for wan in WANS.values()} - {known.dim}:
            raise WeightsError(
                f"{source.student} has width {known.dim}, {source.network} has {dim}: is it this student?"
            )
        return preset
    return next((wan for wan in WANS.values() if wan.dit.dim == dim), WANS["wan-1.3b"])


def _import_codec(
    source: Source, folder: Path, progress: Progress, dtype: torch.dtype, preset: Preset
) -> CodecConfig | WanVAEConfig:
    if source.codec is not None:
        tensors = vae_tensors(tensors_of(source.codec))
        config = codec_config(_shapes(tensors), str(source.codec))
        if config.latent_channels != preset.dit.in_dim:
            raise WeightsError(
                f"the codec {source.codec} has {config.latent_channels} channels, the network {preset.dit.in_dim}"
            )
        save_weights(folder, "codec", _contents(tensors, "codec", progress), dtype, SHARD_BYTES)
        return config
    if source.base is None:
        raise WeightsError(f"{source.network} comes without a codec: give --codec {CODECS[0]}, or --base MODEL")
    _link(net_files(source.base, "codec"), folder)
    return read_manifest(source.base)[0].codec


def _import_text(source: Source, folder: Path, progress: Progress) -> None:
    text = folder / TEXT
    text.mkdir()
    if source.text is None:
        if source.base is None:
            raise WeightsError(f"{source.network} comes without a text encoder: give --text FOLDER, or --base MODEL")
        _link(sorted((source.base / TEXT).iterdir()), text)
        return
    if source.text.is_dir():
        _link([p for p in sorted(source.text.iterdir()) if p.suffix in (".json", ".safetensors")], text)
        if not net_files(folder, TEXT):
            raise WeightsError(f"{source.text} holds no model.safetensors; give the folder of a UMT5 encoder")
    else:
        tensors = umt5_tensors(tensors_of(source.text))
        paths = save_weights(text, "model", _contents(tensors, "text", progress), torch.bfloat16, SHARD_BYTES)
        write_json(text / "config.json", {**UMT5_XXL, **_umt5_sizes(_shapes(tensors))})
        if len(paths) > 1:
            write_json(text / "model.safetensors.index.json", _index(paths))
    tokenizer = source.tokenizer or (source.text if source.text.is_dir() else source.text.parent)
    files = [tokenizer / name for name in TOKENIZER_FILES if (tokenizer / name).is_file()]
    if not any(file.name in ("tokenizer.json", "spiece.model") for file in files):
        raise WeightsError(f"{tokenizer} holds no tokenizer (tokenizer.json or spiece.model); give the one of umt5-xxl")
    _link([file for file in files if not (text / file.name).exists()], text)


def _umt5_sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """What the shapes of an encoder say of its config."""
    vocab, d_model = shapes["shared.weight"]
    inner, _ = shapes["encoder.block.0.layer.0.SelfAttention.q.weight"]
    buckets, heads = shapes["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    d_ff, _ = shapes["encoder.block.0.layer.1.DenseReluDense.wi_0.weight"]
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


def _link(files: list[Path], folder: Path) -> None:
    """Give files a second name; copy them where the disk cannot."""
    for file in files:
        real, target = file.resolve(), folder / file.name
        try:
            os.link(real, target)
        except OSError:
            shutil.copyfile(real, target)


def _num_heads(path: Path) -> int | None:
    """As the config beside a network says."""
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

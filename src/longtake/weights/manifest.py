"""The manifest of a model folder: preset, hashes, vocabulary and provenance of its weights."""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from longtake.core.configs import Preset
from longtake.core.errors import WeightsError
from longtake.core.vocabulary import Vocabulary
from longtake.weights.checkpoint import digest, weight_files, write_json

FORMAT = 1
NETS = ("student", "teacher", "codec", "source_adapter")
TEXT = "text"  # folder of the text encoder, in the layout of transformers
HASHED_WHEN_OPENED = 256 * 2**20  # bytes; larger nets are checked by size, and by hash in `longtake models check`
ADVICE = {
    "student": "a bidirectional model makes whole clips: import a causal student of it (longtake models import --help)",
    "teacher": "a published student comes without its teacher",
}
_PRESET = TypeAdapter(Preset)
_HASHES = TypeAdapter(dict[str, str])
_VOCABULARY = TypeAdapter(Vocabulary)


def write_manifest(
    folder: Path, preset: Preset, provenance: dict[str, Any], vocabulary: Vocabulary | None = None
) -> None:
    """Write the manifest of the weights in `folder`, with the vocabulary they were trained on where it is known."""
    write_json(
        folder / "manifest.json",
        {
            "format": FORMAT,
            "preset": _PRESET.dump_python(preset, mode="json"),
            "sha256": {name: digest(files) for name in (*NETS, TEXT) if (files := net_files(folder, name))},
            "bytes": {name: _size(files) for name in (*NETS, TEXT) if (files := net_files(folder, name))},
            **({} if vocabulary is None else {"vocabulary": _VOCABULARY.dump_python(vocabulary, mode="json")}),
            "provenance": provenance,
        },
    )


def read_vocabulary(folder: Path) -> Vocabulary | None:
    """The vocabulary that a model was trained on; None if its manifest has none.

    Raises:
        WeightsError: the manifest is damaged.
    """
    path = folder / "manifest.json"
    try:
        told = json.loads(path.read_text()).get("vocabulary")
        return None if told is None else _VOCABULARY.validate_python(told)
    except (OSError, ValueError, AttributeError) as err:
        raise WeightsError(f"{path} is damaged ({err})") from err


def read_manifest(folder: Path) -> tuple[Preset, dict[str, str]]:
    """The preset of a model folder and the hashes of its nets.

    Raises:
        WeightsError: there is no manifest, or it is damaged or of another version.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise WeightsError(f"{folder} holds no manifest.json; is it a longtake model folder?")
    try:
        data = json.loads(path.read_text())
        version = data["format"]
        if version == FORMAT:
            return _PRESET.validate_python(data["preset"]), _HASHES.validate_python(data["sha256"])
    except (ValueError, KeyError, TypeError) as err:
        raise WeightsError(f"{path} is damaged ({err})") from err
    raise WeightsError(f"{path} has format {version}, this longtake reads {FORMAT}; update longtake")


def net_files(folder: Path, name: str) -> list[Path]:
    """Files that hold a net of a model folder, or its text encoder."""
    return weight_files(folder / TEXT, "model") if name == TEXT else weight_files(folder, name)


def check_digest(folder: Path, name: str, expected: dict[str, str], *, whole: bool = False) -> str:
    """Check a net's files against the manifest and return their hash.

    Args:
        folder: model folder.
        name: name of the net.
        expected: hashes as returned by `read_manifest`.
        whole: whether large files are hashed too; otherwise only their size is checked.

    Raises:
        WeightsError: the files are missing or are not the ones the manifest was written for.
    """
    files = net_files(folder, name)
    if name not in expected:
        advice = ADVICE.get(name, "its manifest is damaged: fetch the model again")
        raise WeightsError(f"{folder.name} has no {name}, only {', '.join(sorted(expected))}; {advice}")
    if not files:
        raise WeightsError(f"no {name}.safetensors in {folder}; the model folder is incomplete")
    if not whole and _size(files) > HASHED_WHEN_OPENED:
        size = json.loads((folder / "manifest.json").read_text()).get("bytes", {}).get(name)
        if size != _size(files):
            raise WeightsError(f"{name} in {folder} has {_size(files)} bytes, the manifest says {size}; fetch it again")
        return expected[name]
    found = digest(files)
    if found != expected[name]:
        raise WeightsError(
            f"{name} in {folder} is damaged or was exchanged: its hash is {found[:12]}, the manifest "
            f"says {expected[name][:12]}; fetch the model again"
        )
    return found


def _size(files: list[Path]) -> int:
    return sum(file.stat().st_size for file in files)

"""The manifest that travels with weights: what they are, how to sample them, and their hashes."""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from longtake.core.configs import Preset
from longtake.core.errors import WeightsError
from longtake.weights.checkpoint import digest, weight_files, write_json

FORMAT = 1
NETS = ("student", "teacher", "codec")
_PRESET = TypeAdapter(Preset)
_HASHES = TypeAdapter(dict[str, str])


def write_manifest(folder: Path, preset: Preset, provenance: dict[str, Any]) -> None:
    """Describe the weights that lie in `folder`."""
    write_json(
        folder / "manifest.json",
        {
            "format": FORMAT,
            "preset": _PRESET.dump_python(preset, mode="json"),
            "sha256": {name: digest(files) for name in NETS if (files := weight_files(folder, name))},
            "provenance": provenance,
        },
    )


def read_manifest(folder: Path) -> tuple[Preset, dict[str, str]]:
    """The preset of a model folder and the hashes of its nets.

    Raises:
        WeightsError: no manifest, or it is damaged or of a later version.
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


def check_digest(folder: Path, name: str, expected: dict[str, str]) -> str:
    """The hash of a net's files, which must be the manifest's.

    Raises:
        WeightsError: the files are missing or are not the ones the manifest was written for.
    """
    files = weight_files(folder, name)
    if not files:
        raise WeightsError(f"no {name}.safetensors in {folder}; the model folder is incomplete")
    found = digest(files)
    if found != expected.get(name):
        raise WeightsError(
            f"{name} in {folder} is damaged or was exchanged: its hash is {found[:12]}, the manifest "
            f"says {str(expected.get(name))[:12]}; fetch the model again"
        )
    return found

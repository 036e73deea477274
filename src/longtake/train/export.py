"""The finished model: student, teacher and codec in half precision with a manifest, ready to ship."""

import json
from pathlib import Path

import torch

from longtake.train.codec_fit import STAGE as CODEC
from longtake.train.dmd import STAGE as DMD
from longtake.train.stage import Context
from longtake.train.teacher import STAGE as TEACHER
from longtake.weights.checkpoint import read_weights, save_weights
from longtake.weights.manifest import write_manifest


def export(context: Context) -> Path:
    """Write `out/model`; the folder can be opened, moved and shipped."""
    folder = context.out / "model"
    for name, stage in (("student", DMD), ("teacher", TEACHER), ("codec", CODEC)):
        tensors = read_weights(context.folder(stage), name)
        save_weights(folder, name, tensors, dtype=torch.float16)
    provenance = {
        path.parent.name: json.loads(path.read_text()) for path in sorted(context.out.glob("*/provenance.json"))
    }
    write_manifest(folder, context.preset, provenance)
    return folder

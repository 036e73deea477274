"""Export of the finished model: student, teacher, codec and source adapter in half precision, with a manifest."""

import json
from pathlib import Path

import torch

from longtake.core.configs import WanVAEConfig
from longtake.core.vocabulary import Vocabulary
from longtake.train.decoder_tuning import decoder_stage
from longtake.train.source_adapter import STAGE as SOURCE_ADAPTER
from longtake.train.stage import Context
from longtake.train.teacher import STAGE as TEACHER
from longtake.weights.checkpoint import link_files, read_weights, save_weights
from longtake.weights.manifest import TEXT, write_manifest
from longtake.weights.presets import model_folder


def export(context: Context, student: str, start: str | None = None, vocabulary: Vocabulary | None = None) -> Path:
    """Write the model to `out/model`, a self-contained folder, and return its path.

    Args:
        context: the training run.
        student: name of the stage that produced the student.
        start: model that the teacher was initialised from; it provides the text encoder where a model contains one.
        vocabulary: words of the captions, if they come from a world.
    """
    folder = context.out / "model"
    for name, stage in (("student", student), ("teacher", TEACHER), ("codec", decoder_stage(context))):
        tensors = read_weights(context.folder(stage), name)
        # The Wan VAE stays in fp32: other models read its latents.
        exact = name == "codec" and isinstance(context.preset.codec, WanVAEConfig)
        save_weights(folder, name, tensors, dtype=torch.float32 if exact else torch.float16)
    if context.done(SOURCE_ADAPTER):  # only its low-rank corrections: its other weights are the student's
        save_weights(
            folder, "source_adapter", read_weights(context.folder(SOURCE_ADAPTER), "lora"), dtype=torch.float16
        )
    if context.preset.text == "umt5":
        assert start is not None, "a recipe without a start has no text encoder of its own"
        (folder / TEXT).mkdir(exist_ok=True)
        link_files(sorted((model_folder(start) / TEXT).iterdir()), folder / TEXT)
    provenance = {
        path.parent.name: json.loads(path.read_text()) for path in sorted(context.out.glob("*/provenance.json"))
    }
    write_manifest(folder, context.preset, provenance, vocabulary)
    return folder

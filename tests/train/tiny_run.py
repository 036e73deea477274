"""A training run whose early stages are done: random latents, captions that change, random networks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from longtake.core.configs import Preset
from longtake.core.tasks import LocalTasks
from longtake.nets.text import TextEncoder
from longtake.train import latents, ode_init, stage, teacher
from longtake.train.loop import Limits, train
from longtake.train.stage import Context
from longtake.train.trainee import Trainee
from longtake.weights.checkpoint import save_weights
from tests.tiny import PRESET, random_dit

CLIPS, LATENT_FRAMES = 5, 12
OPENINGS = ("a tiger walks", "a red car drives", "a ball bounces", "a bird flies", "a boat sails")


def context(out: Path, encoder: TextEncoder, preset: Preset = PRESET) -> Context:
    return Context(
        out=out,
        preset=preset,
        device=torch.device("cpu"),
        limits=Limits(),
        progress=lambda *_: None,
        encoder=encoder,
        tasks=LocalTasks(torch.device("cpu"), 1),
    )


def prepared(out: Path, encoder: TextEncoder, preset: Preset = PRESET) -> Context:
    """A run with latents, a teacher and a student's start that did not come from training."""
    run = context(out, encoder, preset)
    rng = torch.Generator().manual_seed(0)
    rows, columns = preset.latent_grid(preset.size)
    clips = torch.randn(CLIPS, preset.dit.in_dim, LATENT_FRAMES, rows, columns, generator=rng).half()
    chunks = LATENT_FRAMES // preset.stream.chunk
    captions = [[opening if idx < 2 else f"{opening}, it snows" for idx in range(chunks)] for opening in OPENINGS]
    metadata = {"captions": json.dumps(captions)}
    save_file({"latents": clips}, run.begin(latents.STAGE) / "0000000.safetensors", metadata)
    run.finish(latents.STAGE)
    for seed, (done_stage, name) in enumerate(((teacher.STAGE, "teacher"), (ode_init.STAGE, "student"))):
        save_weights(run.folder(done_stage), name, random_dit(preset.dit, seed, torch.float32).state_dict())
    done(run, teacher.STAGE)
    return run


def done(run: Context, name: str) -> None:
    """Count a stage as finished with what lies in its folder."""
    run.begin(name)
    run.finish(name)


def trainees_of(monkeypatch: pytest.MonkeyPatch, run: Callable[[], object]) -> list[Trainee]:
    """What a stage hands to the loop: its networks and its losses, as they are before the first step."""
    caught: list[Trainee] = []

    def watched(folder: Path, config: Any, trainees: list[Trainee], **rest: Any) -> bool:
        caught.extend(trainees)
        return train(folder, config, trainees, **rest)

    monkeypatch.setattr(stage, "train", watched)
    run()
    return caught

"""Which clips, tokens and cells the teacher's loss looks at."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from longtake.core.errors import ConfigError
from longtake.core.noise import rng_for
from longtake.flow.schedule import logit_normal_sigma
from longtake.nets.text import MiniLMEncoder
from longtake.train import teacher
from longtake.train.batches import Batch
from longtake.train.latents import OPENINGS_STAGE
from longtake.train.loop import LoopConfig
from longtake.train.optim import OptimConfig
from longtake.train.teacher import Phase, TeacherStage, cell_weights, kept_tokens
from tests.tiny import PRESET
from tests.train.tiny_run import done, prepared, trainees_of


def batch_of(cover: torch.Tensor | None) -> Batch:
    return Batch(x0=torch.zeros(2, 4, 3, 4, 6), text=torch.zeros(2, 1, 2, 3), cover=cover)


def test_tokens_are_kept_at_random_wherever_the_subject_is() -> None:
    """Each as often as every other, and no two alike: the choice says nothing of the clip."""
    shape = torch.Size((2, 4, 3, 4, 6))
    drawn = torch.stack([kept_tokens(shape, 0.5, 2, rng_for(0, ("kept", i))) for i in range(400)])
    assert drawn.shape == (400, 2, 3, 3)
    assert all(len(set(row)) == 3 for row in drawn.flatten(0, 2).tolist())
    counts = torch.stack([(drawn == token).any(-1).float().mean(0) for token in range(6)])
    assert (counts - 0.5).abs().max() < 0.12
    whole = kept_tokens(shape, 1.0, 2, rng_for(0, ("kept",)))
    assert torch.equal(whole.sort(-1).values, torch.arange(6).expand(2, 3, -1))


def test_a_teacher_that_starts_from_weights_uses_all_layers() -> None:
    loop = LoopConfig(steps=4, optim=OptimConfig(adam_lr=1e-3))
    shallow = Phase(until=2, latent_frames=1, batch=2, shifts=(1.0,), layers=1)
    stage = TeacherStage(loop=loop, phases=(shallow, Phase(until=4, latent_frames=3, batch=2, shifts=(1.0,))))
    with pytest.raises(ConfigError, match="leave `layers` out"):
        replace(stage, start="tiny-world")
    started = stage.starting_from("tiny-world")
    assert (started.start, [phase.layers for phase in started.phases]) == ("tiny-world", [None, None])
    assert replace(started, start=None, phases=stage.phases) == stage


def test_cells_count_more_the_more_a_subject_covers_them() -> None:
    cover = torch.zeros(2, 3, 4, 6)
    cover[0, 0, 1, 1], cover[0, 0, 1, 2] = 1.0, 0.5
    weights = cell_weights(batch_of(cover), 3.0)
    assert (weights[0, 0, 0, 1, 1], weights[0, 0, 0, 1, 2], weights[0, 0, 0, 0, 0]) == (3, 2, 1)
    assert bool((cell_weights(batch_of(None), 3.0) == 1).all())


def test_the_clips_of_a_batch_take_the_shifts_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepared(tmp_path, MiniLMEncoder(PRESET.dit.text_len))
    drawn: list[torch.Tensor] = []

    def watched(shape: tuple[int, ...], shift: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        drawn.append(shift)
        return logit_normal_sigma(shape, shift, rng)

    monkeypatch.setattr(teacher, "logit_normal_sigma", watched)
    loop = LoopConfig(steps=0, optim=OptimConfig(adam_lr=1e-3))
    phases = (
        Phase(until=2, latent_frames=3, batch=5, shifts=(1.0, 8.0)),
        Phase(until=4, latent_frames=6, batch=2, shifts=(3.0,)),
    )
    shutil.rmtree(run.folder(teacher.STAGE))
    (trained,) = trainees_of(monkeypatch, lambda: teacher.run(TeacherStage(loop=loop, phases=phases), run))
    for step in (0, 2):
        trained.loss(step, rng_for(0, ("step", step)))
    assert [shifts.flatten().tolist() for shifts in drawn] == [[1.0, 8.0, 1.0, 8.0, 1.0], [3.0, 3.0]]


def test_short_phases_learn_from_the_openings_and_long_ones_from_whole_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepared(tmp_path, MiniLMEncoder(PRESET.dit.text_len))
    rows, columns = PRESET.latent_grid(PRESET.size)
    short = torch.full((7, PRESET.dit.in_dim, 3, rows, columns), 50.0).half()
    tensors = {"latents": short, "starts": torch.zeros(7, dtype=torch.int32)}
    captions = {"captions": json.dumps([["a tiger walks"]] * 7)}
    save_file(tensors, run.folder(OPENINGS_STAGE) / "0.safetensors", captions)
    done(run, OPENINGS_STAGE)
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(teacher, "add_noise", lambda x0, eps, sigma: (seen.append(x0), x0)[1])
    phases = tuple(
        Phase(until=i + 1, latent_frames=frames, batch=2, shifts=(1.0,)) for i, frames in enumerate((3, 6, 1))
    )
    shutil.rmtree(run.folder(teacher.STAGE))
    stage = TeacherStage(loop=LoopConfig(steps=0, optim=OptimConfig(adam_lr=1e-3)), phases=phases)
    (trained,) = trainees_of(monkeypatch, lambda: teacher.run(stage, run, openings=True))
    for step in range(3):
        trained.loss(step, rng_for(0, ("step", step)))
    assert [tuple(x0.shape[:3]) for x0 in seen] == [(2, 4, 3), (2, 4, 6), (2, 4, 1)]
    assert [bool((x0 == 50).all()) for x0 in seen] == [True, False, True]

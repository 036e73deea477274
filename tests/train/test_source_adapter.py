"""A student that learns to follow a source: what it is shown, what it learns, what is kept of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from longtake.core.errors import ConfigError
from longtake.flow.path import add_noise, velocity
from longtake.flow.schedule import sigmas_of
from longtake.nets.text import MiniLMEncoder
from longtake.train import codec_fit, decoder_tuning, dmd, source_adapter, source_pairs
from longtake.train.batches import LatentClips, normal
from longtake.train.loop import LoopConfig
from longtake.train.optim import OptimConfig
from longtake.train.run import load_recipe
from longtake.train.source_adapter import SourceAdapterStage
from longtake.train.source_pairs import SourcePairsStage, sources
from longtake.train.stage import Context
from longtake.weights.checkpoint import read_weights, save_weights
from longtake.worlds.render import render
from longtake.worlds.sampling import sample_scene
from longtake.worlds.scenes import WorldConfig
from tests.tiny import PRESET, random_codec, random_dit
from tests.train.tiny_run import context, done, trainees_of

OPTIM = OptimConfig(adam_lr=3e-3, warmup=1)
ADAPTING = SourceAdapterStage(loop=LoopConfig(steps=0, optim=OPTIM), batch=4, latent_frames=6, rank=4)
FRAMES = 9


@pytest.fixture
def run(tmp_path: Path) -> Context:
    """A finished student, and clips that are their sources turned upside down."""
    made = context(tmp_path, MiniLMEncoder(PRESET.dit.text_len))
    shown = torch.randn(6, PRESET.dit.in_dim, FRAMES, 4, 6, generator=torch.Generator().manual_seed(0)).half()
    captions = json.dumps([["a tiger walks"] * 3] * 6)
    folder = made.begin(source_pairs.STAGE)
    save_file({"latents": shown.flip(3), "sources": shown}, folder / "0.safetensors", {"captions": captions})
    made.finish(source_pairs.STAGE)
    save_weights(made.folder(dmd.STAGE), "student", random_dit(dtype=torch.float32).state_dict())
    done(made, dmd.STAGE)
    return made


def test_the_loss_is_flow_matching_at_the_students_levels(run: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    (trainee,) = trainees_of(monkeypatch, lambda: source_adapter.run(ADAPTING, dmd.STAGE, run))
    loss, _ = trainee.loss(0, torch.Generator().manual_seed(4))
    rng = torch.Generator().manual_seed(4)
    batch = LatentClips(run.folder(source_pairs.STAGE), run.encoder, 3, run.device).draw(4, 6, rng)
    assert batch.source is not None
    assert torch.equal(batch.source.flip(3), batch.x0)
    levels = torch.tensor(sigmas_of(PRESET.student))
    sigma = levels[torch.randint(len(levels), (4, 2), generator=rng)].float().repeat_interleave(3, 1)
    eps = normal(batch.x0.shape, rng, run.device)
    with torch.no_grad():
        v = random_dit(dtype=torch.float32).forward_teacher_forced(
            batch.x0, add_noise(batch.x0, eps, sigma), sigma, batch.text, 3
        )
    torch.testing.assert_close(loss, (v - velocity(batch.x0, eps)).square().mean(), rtol=1e-4, atol=1e-4)


def test_only_corrections_and_the_sources_embedding_learn(run: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    (trainee,) = trainees_of(monkeypatch, lambda: source_adapter.run(ADAPTING, dmd.STAGE, run))
    trainee.loss(0, torch.Generator().manual_seed(0))[0].backward()
    learned = {n for n, p in trainee.net.named_parameters() if p.grad is not None}
    assert learned == {n for n, _ in trainee.net.named_parameters() if "lora_" in n or "source_embedding" in n}


def test_it_learns_to_follow_and_only_what_it_learned_is_shipped(run: Context) -> None:
    stage = replace(ADAPTING, loop=LoopConfig(steps=60, optim=replace(OPTIM, muon_lr=3e-3), ema_decay=0.5, log_every=1))
    assert source_adapter.run(stage, dmd.STAGE, run)
    folder = run.folder(source_adapter.STAGE)
    losses = [
        json.loads(line).get("source_adapter/loss") for line in (folder / "events.jsonl").read_text().splitlines()
    ]
    losses = [value for value in losses if value is not None]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    learned = read_weights(folder, "lora")
    assert {key.split(".")[1] for key in learned} == {"blocks", "source_embedding"}
    student, whole = read_weights(run.folder(dmd.STAGE), "student"), read_weights(folder, "source_adapter")
    assert whole.keys() - student.keys() == {"source_embedding.weight", "source_embedding.bias"}
    assert torch.equal(whole["head.head.weight"], student["head.head.weight"])


def test_sources_show_the_same_moves_in_other_looks() -> None:
    world = replace(WorldConfig.small(), latent_frames=3)
    scenes = [sample_scene(world, seed) for seed in range(12)]
    shown = sources(scenes)
    assert torch.equal(shown, sources(scenes))
    assert shown.shape == render(scenes).shape
    plain = sum(
        float((a.float() - b.float()).abs().mean()) < 60 and not torch.equal(a, b)
        for a, b in zip(shown, render(scenes, "plain"), strict=True)
    )
    assert plain >= 6


def test_pairs_are_made_of_both_looks_and_made_again_alike(tmp_path: Path) -> None:
    stage = SourcePairsStage(num_clips=4, latent_frames=3, clips_per_shard=2)
    found = []
    for name in ("one", "other"):
        made = context(tmp_path / name, MiniLMEncoder(PRESET.dit.text_len))
        save_weights(made.folder(codec_fit.STAGE), "codec", random_codec(dtype=torch.float32).state_dict())
        done(made, codec_fit.STAGE)
        assert source_pairs.run(stage, WorldConfig.small(), made)
        paths = sorted(made.folder(source_pairs.STAGE).glob("*.safetensors"))
        assert len(paths) == 2
        with safe_open(paths[1], framework="pt") as shard:
            found.append({key: shard.get_tensor(key) for key in ("latents", "sources")})
    assert found[0]["latents"].shape == found[0]["sources"].shape == (2, 4, 3, 12, 20)
    assert not torch.equal(found[0]["latents"], found[0]["sources"])
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_a_recipe_has_both_stages_and_clips_that_are_long_enough() -> None:
    recipe = load_recipe("smoke")
    assert [*recipe.stages()][-3:] == [source_pairs.STAGE, source_adapter.STAGE, decoder_tuning.STAGE]
    with pytest.raises(ConfigError, match="both source_pairs and source_adapter"):
        replace(recipe, source_pairs=None)
    with pytest.raises(ConfigError, match=r"source_adapter has 6 latent frames.* at most the 3"):
        replace(recipe, source_pairs=SourcePairsStage(num_clips=4, latent_frames=3))

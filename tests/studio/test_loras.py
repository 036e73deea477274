"""LoRAs of an opened model: their scales are cues, and at each scale a take is that of the merged model."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

import longtake
from longtake.cli.main import main
from longtake.core.errors import InputError, WeightsError
from longtake.studio.script import Script
from longtake.studio.studio import Studio
from longtake.studio.takes import Take
from longtake.studio.timeline import path_to
from longtake.weights.live_loras import LoraChoice
from tests.tiny import write_model
from tests.weights.test_lora import LAYERS, diffusers, kohya, written


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(tmp_path_factory.mktemp("model") / "mine", source_adapter=True))


@pytest.fixture(scope="module")
def ink(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tensors = {key: tensor for layer in LAYERS for key, tensor in kohya(layer).items()}
    bias = {"diffusion_model.blocks.0.self_attn.q.diff_b": torch.full((48,), 0.3)}
    return written({**tensors, **bias}, tmp_path_factory.mktemp("lora") / "ink.safetensors")


@pytest.fixture(scope="module")
def clay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(diffusers(LAYERS[3]), tmp_path_factory.mktemp("lora") / "clay.safetensors")


@pytest.fixture
def studio(model: str, ink: Path, clay: Path) -> Studio:
    return longtake.open(model, device="cpu", loras={"ink": ink, "clay": LoraChoice(clay, 0.5)})


def frames(take: Take, chunks: int = 3) -> list[Tensor]:
    return [chunk.frames for chunk in islice(take.stream(), chunks)]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def merged(model: str, loras: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Studio:
    monkeypatch.setenv("LONGTAKE_HOME", str(tmp_path))
    words = [word for lora in loras for word in ("--lora", lora)]
    assert main(["models", "import", model, "--name", "merged", *words]) == 0
    return longtake.open("merged", device="cpu")


def test_at_scale_0_the_bits_are_those_of_the_model_alone(model: str, studio: Studio) -> None:
    plain = frames(longtake.open(model, device="cpu").take("a tiger"))
    assert same(frames(studio.take("a tiger", loras={"ink": 0, "clay": 0})), plain)
    assert not same(frames(studio.take("a tiger")), plain)  # one of them has been active in between
    assert same(frames(studio.take("a tiger", loras={"ink": 0, "clay": 0})), plain)


def test_a_take_is_that_of_the_merged_model(
    model: str, studio: Studio, ink: Path, clay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = merged(model, [f"{ink}:0.7", f"{clay}:0.5"], tmp_path, monkeypatch)
    mine, theirs = frames(studio.take("a tiger", loras={"ink": 0.7})), frames(other.take("a tiger"))
    # The merged model is stored in halves; the other's weights are halves plus corrections in fp32.
    for a, b in zip(mine, theirs, strict=True):
        assert (a.int() - b.int()).abs().float().mean() < 1
    plain = frames(longtake.open(model, device="cpu").take("a tiger"))
    assert (mine[0].int() - plain[0].int()).abs().float().mean() > 5


def test_a_cue_changes_a_scale_from_its_chunk_on_and_leaves_the_others(studio: Studio) -> None:
    take = studio.take("a tiger", loras={"ink": 0, "clay": 0})
    take.cue(loras={"ink": 1.0}, at=1)
    take.cue(loras={"clay": -0.5}, at=2)
    made = frames(take, 4)
    scales = [node.plan.settings.loras for node in path_to(take.state.head)]
    assert scales == [(("clay", 0), ("ink", 0)), (("clay", 0), ("ink", 1.0)), *[(("clay", -0.5), ("ink", 1.0))] * 2]
    assert [node.plan.transition for node in path_to(take.state.head)] == [None, "recache", "recache", None]
    plain = frames(studio.take("a tiger", loras={"ink": 0, "clay": 0}), 4)
    assert torch.equal(made[0], plain[0])
    assert not torch.equal(made[1], plain[1])


def test_a_scale_fades_from_the_one_in_force(studio: Studio) -> None:
    take = studio.take("a tiger")
    take.cue(loras={"ink": 3.0}, at=1, fade=4)
    frames(take, 6)
    plans = [node.plan for node in path_to(take.state.head)][:6]
    assert [dict(plan.settings.loras).get("ink") for plan in plans] == [None, 1.5, 2.0, 2.5, 3.0, 3.0]
    assert [plan.transition for plan in plans] == [None, *["recache"] * 4, None]
    assert {plan.wording for plan in plans} == {(("a tiger", 1.0),)}


def test_a_script_replays_the_scales_and_asks_for_the_loras(studio: Studio, model: str, tmp_path: Path) -> None:
    take = studio.take("a tiger", loras={"ink": 0.2})
    take.cue(loras={"ink": 1.0}, prompt="a lion", at=1, fade=2)
    made = frames(take, 4)
    script = Script.load(take.script().save(tmp_path / "take.json"))
    assert same(frames(studio.replay(script), 4), made)
    with pytest.raises(InputError, match="weights"):
        longtake.open(model, device="cpu").replay(script)
    free = script.model_copy(update={"weights": None})
    with pytest.raises(InputError, match='not opened with a LoRA "ink", it has none'):
        longtake.open(model, device="cpu").replay(free)


def test_two_takes_of_other_scales_do_not_disturb_each_other(model: str, ink: Path) -> None:
    """What is derived from weights and kept (texts, noise levels) is kept for each scale."""
    alone = [
        frames(longtake.open(model, device="cpu", loras={"ink": LoraChoice(ink, scale)}).take("a tiger"))
        for scale in (0.0, 1.0)
    ]
    studio = longtake.open(model, device="cpu", loras={"ink": ink})
    streams = [studio.take("a tiger", loras={"ink": scale}).stream() for scale in (0.0, 1.0)]
    in_turn = [[next(stream).frames for stream in streams] for _ in range(3)]
    for i in range(2):
        assert same([made[i] for made in in_turn], alone[i])


def test_a_take_that_follows_a_video_has_them_too(studio: Studio) -> None:
    video = torch.randint(0, 255, (21, studio.size.height, studio.size.width, 3), dtype=torch.uint8)
    takes = [studio.restyle(video, "a tiger", loras={"ink": scale}) for scale in (0.0, 1.0)]
    first, second = (next(iter(take.stream())).frames for take in takes)
    assert not torch.equal(first, second)


def test_refusals(studio: Studio, model: str, ink: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match='not opened with a LoRA "oil", it has ink, clay'):
        studio.take("a tiger", loras={"oil": 1})
    take = studio.take("a tiger")
    with pytest.raises(InputError, match='"oil"'):
        take.cue(loras={"oil": 1})
    with pytest.raises(InputError, match="less than or equal to 10"):
        take.cue(loras={"ink": 11})
    assert take.state.pending == ()
    with pytest.raises(InputError, match="from -10 to 10"):
        longtake.open(model, device="cpu", loras={"ink": LoraChoice(ink, 99)})
    with pytest.raises(WeightsError, match="merge them"):
        longtake.open(model, device="cpu", fp8=True, loras={"ink": ink})
    with pytest.raises(WeightsError, match="missing, damaged"):
        longtake.open(model, device="cpu", loras={"ink": tmp_path / "nowhere.safetensors"})
    with pytest.raises(InputError, match="at most 16 LoRAs"):
        longtake.open(model, device="cpu", loras={str(i): ink for i in range(17)})

"""Your own videos: every way to caption them, what is left out and why, and a model that goes on from its weights."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from longtake.cli.main import main
from longtake.core.errors import InputError
from longtake.core.shapes import PictureSize
from longtake.media.animations import open_writer
from longtake.media.clips import read_video
from longtake.nets.light_codec import CodecState
from longtake.train.batches import pixels
from longtake.train.run import load_recipe, run_recipe
from longtake.train.videos import about_of, prepare
from longtake.weights.checkpoint import read_weights
from longtake.weights.presets import model_folder, open_codec
from tests import published
from tests.tiny import PRESET, write_model

CLIP = 33  # frames: 9 latent frames at 16 frames/s
RECIPE = "smoke"


def film(path: Path, frames: int, seed: int = 0) -> None:
    """Smooth noise that moves, in a size of its own."""
    torch.manual_seed(seed)
    picture = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 8), (72, 96), mode="bicubic").clamp(0, 1)
    still = (picture[0].permute(1, 2, 0) * 255).to(torch.uint8)
    clip = torch.stack([still.roll(2 * f, 1) for f in range(frames)])
    with open_writer(path, fps=16, size=PictureSize(height=72, width=96)) as writer:
        writer.push(clip)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(tmp_path_factory.mktemp("model") / "m"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two videos and a half that can be used, and four that cannot."""
    folder = tmp_path / "films"
    film(folder / "a.mp4", 2 * CLIP + 5)
    (folder / "a.txt").write_text("  a red\n boat ")
    film(folder / "b.mp4", CLIP, seed=1)
    later = {"captions": [{"at_s": 1.0, "caption": "it snows"}, {"at_s": 0, "caption": "a hill"}]}
    (folder / "b.json").write_text(json.dumps(later))
    film(folder / "sub" / "c.mp4", CLIP, seed=2)
    (folder / "captions.csv").write_text('file,caption\nsub/c.mp4,"a cat, asleep"\n')
    film(folder / "short.mp4", CLIP - 4)
    (folder / "short.txt").write_text("too short")
    film(folder / "silent.mp4", CLIP)
    film(folder / "empty.mp4", CLIP)
    (folder / "empty.txt").write_text(" \n")
    (folder / "broken.mp4").write_bytes(b"this is no video")
    (folder / "broken.txt").write_text("broken")
    return folder


def quiet(*_: object) -> None:
    """Nobody looks at the progress."""


def shard_of(out: Path, name: str) -> tuple[Path, torch.Tensor, list[list[str]]]:
    for path in out.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            about = file.metadata()
            if json.loads(about["source"])["file"] == name:
                return path, file.get_tensor("latents"), json.loads(about["captions"])
    raise AssertionError(f"no shard of {name}")


def test_videos_become_clips_with_their_captions(folder: Path, model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = prepare(folder, out, model, quiet)
    assert (made.videos, made.clips) == (3, 4)
    assert shard_of(out, "a.mp4")[2] == [["a red boat"] * 3] * 2
    assert shard_of(out, "b.mp4")[2] == [["a hill", "a hill", "it snows"]]
    assert shard_of(out, "sub/c.mp4")[2] == [["a cat, asleep"] * 3]
    assert about_of(out).model == model
    codec = open_codec(model).codec
    whole = read_video(folder / "a.mp4", PRESET.size, PRESET.fps)
    for i, latent in enumerate(shard_of(out, "a.mp4")[1]):
        with torch.inference_mode():
            wanted, _ = codec.encode(pixels(whole[None, i * CLIP : (i + 1) * CLIP]), CodecState())
        torch.testing.assert_close(latent.float(), wanted[0], atol=2e-3, rtol=2e-3)


def test_what_cannot_be_used_is_named_with_the_reason(folder: Path, model: str, tmp_path: Path) -> None:
    skipped = prepare(folder, tmp_path / "out", model, quiet).skipped
    assert {name: why.split(" ")[0] for name, why in skipped.items()} == {
        "broken.mp4": "cannot",
        "empty.mp4": "a",
        "short.mp4": "shorter",
        "silent.mp4": "no",
    }
    assert json.loads((tmp_path / "out" / "skipped.json").read_text()) == skipped


def test_what_is_there_is_not_made_again_and_what_changed_is(folder: Path, model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(folder, out, model, quiet)
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
    changed = shard_of(out, "a.mp4")[0].name
    (folder / "a.txt").write_text("a blue boat")
    made = prepare(folder, out, model, quiet)
    assert made.clips == 4
    again = {path.name: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
    assert {name for name in times if times[name] != again[name]} == {changed}
    assert shard_of(out, "a.mp4")[2][0] == ["a blue boat"] * 3


def test_folders_that_do_not_fit_are_refused(folder: Path, model: str, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no videos"):
        prepare(tmp_path / "none", tmp_path / "out", model, quiet)
    prepare(folder, tmp_path / "out", model, quiet)
    other = str(write_model(tmp_path / "other", seed=5))
    with pytest.raises(InputError, match="another model"):
        prepare(folder, tmp_path / "out", other, quiet)
    (folder / "captions.csv").write_text("name,words\na,b\n")
    with pytest.raises(InputError, match="needs the columns"):
        prepare(folder, tmp_path / "new", model, quiet)
    with pytest.raises(InputError, match="no prepared clips"):
        load_recipe(RECIPE).on_videos(tmp_path / "none")


def test_training_goes_on_from_the_model_on_the_prepared_clips(
    folder: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = str(tmp_path / "data"), tmp_path / "run"
    assert main(["data", "prepare", str(folder), "--out", data, "--model", model]) == 0
    said = capsys.readouterr()
    assert "4 clips of 3 videos" in said.out
    assert "left out: broken.mp4" in said.err
    words = ["train", RECIPE, "--data", data, "--out", str(out), "--device", "cpu"]
    assert main([*words, "--stage", "codec", "--stage", "latents", "--stage", "teacher"]) == 0
    begun, trained = read_weights(Path(model), "teacher"), read_weights(out / "teacher", "teacher")
    assert begun.keys() == trained.keys()
    key = "blocks.0.ffn.0.weight"
    moved = (trained[key] - begun[key].float()).norm() / begun[key].float().norm()
    assert 0 < moved < 0.5
    assert len(list((out / "latents").glob("*.safetensors"))) == 3


@pytest.mark.slow
def test_a_wan_learns_a_correction_from_videos_and_reads_umt5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTAKE_HOME", str(tmp_path / "home"))
    wan = str(published.original(tmp_path / "Wan"))
    assert main(["models", "import", wan, "--name", "mine", "--precision", "fp32"]) == 0
    manifest = model_folder("mine") / "manifest.json"
    told = json.loads(manifest.read_text())
    told["preset"] |= {"size": {"height": 32, "width": 48}, "clip_latent_frames": 9}
    manifest.write_text(json.dumps(told))
    films = tmp_path / "films"
    films.mkdir()
    film(films / "a.mp4", CLIP)
    (films / "a.txt").write_text("a red boat on the sea")
    data, out = tmp_path / "data", tmp_path / "run"
    assert main(["data", "prepare", str(films), "--out", str(data), "--model", "mine"]) == 0
    recipe = load_recipe(RECIPE).on_videos(data)
    loop = replace(recipe.teacher.loop, steps=2, sample_every=0)
    phase = replace(recipe.teacher.phases[0], batch=1)
    taught = replace(recipe, teacher=replace(recipe.teacher, loop=loop, phases=(phase,), lora_rank=2))
    assert run_recipe(taught, out=out, progress=quiet, stages=("codec", "latents", "teacher"))
    begun, trained = read_weights(model_folder("mine"), "teacher"), read_weights(out / "teacher", "teacher")
    changed = {name for name in begun if not torch.equal(begun[name], trained[name])}
    assert changed == {name for name in begun if name.startswith("blocks.") and begun[name].ndim == 2}
    low_rank = read_weights(out / "teacher", "lora")
    assert len(low_rank) == 3 * len(changed), "the two matrices of a layer and their alpha"


def test_a_folder_without_anything_usable_says_so(model: str, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "x.mp4").write_bytes(b"no")
    assert main(["data", "prepare", str(tmp_path / "films"), "--out", str(tmp_path / "d"), "--model", model]) == 2
    assert main(["train", RECIPE, "--data", str(tmp_path / "d"), "--out", str(tmp_path / "r"), "--device", "cpu"]) == 2

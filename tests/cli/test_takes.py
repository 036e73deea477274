"""The commands that direct takes, from the words to the file."""

import json
from pathlib import Path

import av
import pytest
import torch
from PIL import Image

from longtake.cli.main import main
from longtake.media.clips import read_video
from longtake.media.encode import Mp4Writer
from tests.media.test_audio import tone
from tests.tiny import PRESET, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(tmp_path_factory.mktemp("model")))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.jpg"
    Image.linear_gradient("L").resize((200, 90)).save(path)
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    rng = torch.Generator().manual_seed(0)
    with Mp4Writer(path, fps=16, size=PRESET.size) as writer:
        writer.push(torch.randint(0, 256, (40, 32, 48, 3), generator=rng, dtype=torch.uint8))
    return path


def frames(path: Path) -> int:
    return len(read_video(path))


def test_a_picture_moves_and_its_script_makes_it_again(model: str, image: Path, tmp_path: Path) -> None:
    out, script, again = tmp_path / "a.mp4", tmp_path / "a.take.json", tmp_path / "b.mp4"
    words = ["animate", str(image), "it moves", "--then", "1s: night falls", "--seconds", "2", "--fit", "fit"]
    assert main([*words, "--model", model, "--out", str(out), "--save-script", str(script)]) == 0
    assert frames(out) == 1 + 36
    assert main(["replay", str(script), "--model", model, "--out", str(again)]) == 0
    assert again.read_bytes() == out.read_bytes()


def test_a_clip_is_gone_on_with(model: str, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.mp4"
    assert main(["extend", str(clip), "it goes on", "--seconds", "1", "--model", model, "--out", str(out)]) == 0
    assert frames(out) == 40 + 24


def test_a_clip_is_restyled_to_its_end(model: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "a.mp4"
    words = ["restyle", str(clip), "a tiger", "--then", "1s: snow", "--model", model, "--out", str(out), "--json"]
    assert main(words) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [e["prompt"] for e in events if e["event"] == "cue_applied"] == ["a tiger, snow"]
    assert frames(out) == 40


def test_generate_takes_subtitles_an_image_a_video_and_sound(
    model: str, image: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out, cues = tmp_path / "a.mp4", tmp_path / "cues.vtt"
    cues.write_text("WEBVTT\n\n00:00.000 --> 00:01.000\na tiger\n\n00:01.000 --> 00:02.000\na red car\n")
    sound = tone(tmp_path / "a.wav", 5)
    common = ["--seconds", "2", "--model", model, "--out", str(out)]
    assert main(["generate", "--script", str(cues), "--audio", str(sound), *common, "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [e["prompt"] for e in events if e["event"] == "cue_applied"] == ["a red car"]
    with av.open(str(out)) as container:
        assert len(container.streams.audio) == 1
    assert frames(out) == 33
    assert main(["generate", "a tiger", "--image", str(image), *common]) == 0
    assert frames(out) == 37
    assert main(["generate", "a tiger", "--video", str(clip), *common]) == 0
    assert frames(out) == 40 + 36


def test_scripts_are_looked_at(model: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    script = tmp_path / "a.take.json"
    words = ["generate", "a tiger, then it snows", "--seconds", "2", "--model", model, "--out", str(tmp_path / "a.mp4")]
    assert main([*words, "--save-script", str(script)]) == 0
    capsys.readouterr()
    assert main(["script", "check", str(script)]) == 0
    shown = capsys.readouterr().out
    assert "opening      a tiger" in shown
    assert "prompt a tiger, it snows" in shown
    assert main(["script", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Script"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["generate"], "say what should be seen"),
        (["generate", "a", "--script", "x.vtt"], "leave out the prompt"),
        (["generate", "--script", "x.json"], "longtake replay"),
        (["generate", "--script", "none.vtt"], "cannot read"),
        (["generate", "a", "--image", "a.png", "--video", "b.mp4"], "not with both"),
        (["generate", "a", "--audio", "none.wav"], "does not exist"),
        (["generate", "a", "--audio", "none.wav", "--out", "a.gif"], "sound goes into an .mp4"),
        (["generate", "a", "--teacher", "--image", "a.png"], "leave out --teacher"),
        (["animate", "none.png", "a"], "does not exist"),
        (["extend", "none.mp4", "a"], "does not exist"),
        (["restyle", "none.mp4", "a"], "does not exist"),
        (["restyle", "none.mp4", "a, then b"], "needs --seconds"),
        (["restyle", "none.mp4", "a", "--strength", "2"], "strength lies"),
        (["replay", "none.json"], "cannot read"),
        (["script", "check", "none.json"], "cannot read"),
        (["play"], "no terminal"),
        (["generate", "--script", "none.vtt", "--seconds", "0"], "positive"),
        (["play", "--keys", "fly:1s"], "a move reads"),
        (["play", "--keys", "right:9999s"], "between 0.1 and 600"),
        (["play", "--keys", "right:1s"], "give both or none"),
        (["play", "--keys", "right:1s", "--out", "a.mp4", "--subject", "unicorn"], "unicorn"),
    ],
)
def test_mistakes_are_one_line(
    model: str, words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = words if words[0] in ("replay", "script") else [*words, "--model", model]
    assert main(asked) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
    assert not list(tmp_path.glob("*.mp4"))


def test_the_game_is_played_into_a_file(model: str, tmp_path: Path) -> None:
    out = tmp_path / "game.mp4"
    words = ["play", "a tiger", "--keys", "right:1s left+up:0.5s wait:0.5s", "--model", model, "--out", str(out)]
    assert main(words) == 0
    pictures = read_video(out)
    assert pictures.shape == (32, 32, 96, 3)


def test_a_picture_becomes_half_blocks() -> None:
    from longtake.cli.play import half_blocks

    picture = torch.tensor([[[1, 2, 3], [1, 2, 3]], [[4, 5, 6], [7, 8, 9]]], dtype=torch.uint8)
    assert half_blocks(picture) == "\x1b[38;2;1;2;3;48;2;4;5;6m▀\x1b[38;2;1;2;3;48;2;7;8;9m▀\x1b[0m"

"""`longtake generate` from the words to the file, with a real model of random weights."""

import json
from pathlib import Path

import av
import pytest

from longtake.cli.main import main
from longtake.core.vocabulary import Vocabulary
from longtake.weights.manifest import write_manifest
from tests.tiny import PRESET, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    write_model(folder)
    return str(folder)


def test_words_become_a_playing_file(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "take.mp4"
    words = [
        "generate",
        "a tiger walks, then it snows",
        "--seconds",
        "2",
        "--model",
        model,
        "--out",
        str(out),
        "--json",
    ]
    assert main(words) == 0
    shown = capsys.readouterr()
    events = [json.loads(line) for line in shown.out.splitlines()]
    assert shown.err == ""
    assert [event["event"] for event in events] == ["started", "chunk", "chunk", "cue_applied", "chunk", "finished"]
    assert set(events[1]["timings"]) >= {"denoise", "decode"}
    finished = events[-1]
    with av.open(str(out)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == finished["frames"] >= 32
    assert (frames[0].width, frames[0].height) == (48, 32)


def test_the_same_words_give_the_same_file(model: str, tmp_path: Path) -> None:
    takes = [tmp_path / "one.mp4", tmp_path / "two.mp4", tmp_path / "other.mp4"]
    for take, seed in zip(takes, ("3", "3", "4"), strict=True):
        words = ["generate", "a tiger", "--seconds", "1", "--seed", seed, "--model", model, "--out", str(take)]
        assert main(words) == 0
    one, two, other = (take.read_bytes() for take in takes)
    assert one == two
    assert one != other


def test_words_that_the_model_was_not_trained_on_are_told_with_what_is_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "knows"
    folder.mkdir()
    write_model(folder)
    known = Vocabulary(groups={"subjects": {"tiger": ("tiger", "big cat")}, "motions": {"walks": ("walks",)}})
    write_manifest(folder, PRESET, {}, known)
    take = ["generate", "a lion walks", "--then", "0.8s: a tiger walks", "--seconds", "1", "--model", str(folder)]
    out = str(tmp_path / "take.mp4")
    assert main([*take, "--out", out]) == 0
    assert 'was not trained on "lion" (nearest: "tiger")' in " ".join(capsys.readouterr().err.split())
    assert main([*take, "--out", out, "--json"]) == 0
    started = json.loads(capsys.readouterr().out.splitlines()[0])
    assert started["unknown_words"] == [{"word": "lion", "nearest": "tiger"}]
    assert main(["models", "show", str(folder)]) == 0
    assert "  tiger  (big cat)" in capsys.readouterr().out.splitlines()


def test_a_file_is_written_twice_as_large(model: str, tmp_path: Path) -> None:
    out = tmp_path / "take.mp4"
    assert main(["generate", "a tiger", "--seconds", "1", "--model", model, "--scale", "2", "--out", str(out)]) == 0
    with av.open(str(out)) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (96, 64)


def test_the_teacher_makes_a_take_too(model: str, tmp_path: Path) -> None:
    out = tmp_path / "take.webp"
    assert main(["generate", "a tiger", "--seconds", "1", "--model", model, "--teacher", "--out", str(out)]) == 0
    assert out.stat().st_size > 100


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--size", "47x32"], "width must be a positive multiple"),
        (["--size", "0x32"], "width must be a positive multiple"),
        (["--steps", "1001"], "steps must be"),
        (["--teacher", "--seconds", "600"], ""),
    ],
)
def test_what_the_model_cannot_do_is_one_line_and_no_file(
    model: str, flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", "a tiger", "--seconds", "1", "--model", model, "--out", str(tmp_path / "take.mp4"), *flags]
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert shown.count("\n") == 1
    assert message in shown
    assert not list(tmp_path.iterdir())

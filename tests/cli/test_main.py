"""The front door: help, mistakes, lightness."""

import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from longtake.cli.main import app, main


def python(*code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["generate", "models", "train", "worlds"]),
        (["generate"], ["--then", "--seconds", "--seed", "--size", "--teacher", "--json", "Ctrl-C"]),
        (["models"], ["list", "import", "plan", "check"]),
        (["train"], ["--stage", "--device", "--max-minutes"]),
        (["worlds"], ["preview", "render"]),
        (["worlds", "preview"], ["--num", "--look"]),
        (["worlds", "render"], ["--clips"]),
    ],
)
def test_every_command_has_a_help_that_names_its_flags(words: list[str], expected: list[str]) -> None:
    shown = CliRunner().invoke(app, [*words, "--help"])
    assert shown.exit_code == 0
    for word in expected:
        assert word in shown.stdout


def test_no_words_at_all_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Usage: longtake" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["generate"], "say what should be seen"),
        (["generate", ""], "the prompt is empty"),
        (["generate", "   "], "the prompt is empty"),
        (["generate", "x" * 10_000], "10,000 characters"),
        (["generate", "a\nb"], "control character"),
        (["generate", "a tiger", "--seconds", "-1"], "seconds must be a positive number"),
        (["generate", "a tiger", "--seconds", "nan"], "seconds must be a positive number"),
        (["generate", "a tiger", "--seconds", "soon"], "--seconds"),
        (["generate", "a tiger", "--then", "snow"], 'a change reads "4s: it starts to snow"'),
        (["generate", "a tiger", "--then", "40s: snow"], "after the end"),
        (["generate", "a tiger", "--steps", "0"], "steps must be greater than or equal to 1"),
        (["generate", "a tiger", "--seed", "1" * 30], "seed must be"),
        (["generate", "a tiger", "--size", "big"], "WIDTHxHEIGHT"),
        (["generate", "a tiger", "--out", "take.avi"], ".mp4, .gif, .webp, .png"),
        (["generate", "a tiger", "--out", "/proc/nowhere/take.mp4"], "cannot write"),
        (["generate", "a tiger", "--model", "no such model"], "no such model"),
        (["generate", "a tiger", "--colour", "red"], "--colour"),
        (["paint"], "paint"),
        (["worlds"], "Missing command"),
        (["worlds", "preview", "--num", "0"], "num must lie between"),
        (["worlds", "preview", "--out", "x.mp4"], ".png"),
        (["worlds", "preview", "--out", "/proc/x.png"], "cannot write"),
        (["worlds", "render", "--out", "x"], "--clips"),
        (["worlds", "render", "--out", "x", "--clips", "0"], "clips must be at least 1"),
        (["worlds", "render", "--out", "/proc/x", "--clips", "1"], "cannot write"),
        (["train", "no such recipe"], "no such recipe"),
        (["train", "smoke", "--max-minutes", "0"], "max-minutes must be positive"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert message in shown.err
    assert not list(tmp_path.iterdir())


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"longtake {version('longtake')}\n"


def test_debug_adds_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--debug", "generate", ""]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith("error: the prompt is empty; say what should be seen\n")


def test_the_command_works_as_a_module_and_ends_with_its_exit_code() -> None:
    done = python("-m", "longtake", "generate", "")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: the prompt is empty; say what should be seen\n"


def test_the_front_door_imports_nothing_heavy() -> None:
    done = python(
        "-c",
        "import sys, longtake.cli.main\n"
        "heavy = {'torch', 'numpy', 'av', 'PIL', 'transformers', 'safetensors', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy - {'pydantic'} else 0)",
    )
    assert done.returncode == 0, done.stderr


def test_help_is_there_at_once() -> None:
    def seconds() -> float:
        started = time.perf_counter()
        assert python("-m", "longtake", "--help").returncode == 0
        return time.perf_counter() - started

    # the best of a few: other work on the machine can only add time
    assert min(seconds() for _ in range(4)) < 0.4


def test_a_terminal_shows_at_once_that_a_model_is_being_opened(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["generate", "a tiger", "--model", "no such model", "--out", str(tmp_path / "a.mp4")]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("\r\x1b[Kopening no such model\r\x1b[Kerror: no model")


def test_a_shell_completes_commands() -> None:
    environment = os.environ | {"_LONGTAKE_COMPLETE": "complete_bash", "COMP_WORDS": "longtake gen", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "longtake"], capture_output=True, text=True, check=False, env=environment
    )
    assert done.stdout.split() == ["generate"]

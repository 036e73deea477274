"""The rules of the house that a machine can check."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_floors_are_kept() -> None:
    """The linter runs in a process of its own, since it disables the loggers of the one that it runs in."""
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_no_class_name_is_used_twice() -> None:
    places: dict[str, list[str]] = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert len(places) > 100
    doubled = {name: where for name, where in places.items() if len(where) > 1}
    assert not doubled, "one word for one thing: rename all but one"


def test_the_command_line_reference_equals_the_live_help() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "make_cli.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_make_alone_lists_every_target() -> None:
    listed = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True).stdout
    for target in ("setup", "demo", "test", "check", "fmt", "ci", "docs", "bench", "worlds"):
        assert f"make {target} " in listed


def test_the_licence_and_the_notices_are_there() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    notice = (ROOT / "NOTICE").read_text()
    for credit in ("Microsoft Corporation", "MIT License", "Poly Haven", "CC0 1.0"):
        assert credit in notice


def test_no_file_is_longer_than_can_be_read_at_once() -> None:
    longest = {p: len(p.read_text().splitlines()) for p in (ROOT / "src").rglob("*.py") if p.parent.name != "serve"}
    assert not {str(path): lines for path, lines in longest.items() if lines > 400}


def test_every_deliberate_fault_names_one_place_in_the_package() -> None:
    for fault in tomllib.loads((ROOT / "tests/mutants/faults.toml").read_text())["fault"]:
        text = (ROOT / "src/longtake" / fault["file"]).read_text()
        assert text.count(fault["before"]) == 1, (fault["file"], fault["before"])
        assert all((ROOT / name).exists() for name in fault["tests"]), fault["tests"]

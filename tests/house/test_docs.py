"""The documents say what is there: links, commands, targets."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from longtake.cli.main import app

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
IMAGES = ROOT / "docs" / "images"
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in FENCE.findall(page.read_text()) if kind == language]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    prose = FENCE.sub("", page.read_text())
    for target in LINK.findall(prose):
        if re.match(r"[a-z]+:", target) or target.startswith("#"):
            continue
        path = (page.parent / target.partition("#")[0]).resolve()
        # the pictures come with the first trained model
        if path.is_relative_to(IMAGES) and not IMAGES.exists():
            continue
        assert path.exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_compile(page: Path) -> None:
    for number, text in enumerate(blocks(page, "python"), 1):
        compile(text, f"{page.name}, block {number}", "exec")


def commands() -> Iterator[list[str]]:
    for page in PAGES:
        for text in blocks(page, "bash"):
            for line in text.splitlines():
                yield shlex.split(line, comments=True)


def test_longtake_commands_in_the_documents_parse() -> None:
    lines = [words for words in commands() if words[:1] == ["longtake"]]
    assert len(lines) > 5
    for words in lines:
        command, rest = get_command(app), words[1:]
        while hasattr(command, "commands") and rest:
            command, rest = command.commands[rest[0]], rest[1:]  # pyright: ignore[reportAttributeAccessIssue]
        command.make_context(words[1], rest)  # parses and checks, runs nothing


def test_make_targets_in_the_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {words[1] for words in commands() if words[:1] == ["make"] and len(words) > 1}
    assert {"demo", "test"} <= named <= targets

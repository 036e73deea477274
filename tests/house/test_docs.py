"""The documents say what is there: the tree, the links, the commands, the signatures."""

import ast
import re
import shlex
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from typer.main import get_command

from longtake.cli.main import app

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "longtake"
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
IMAGES = ROOT / "docs" / "images"
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in FENCE.findall(page.read_text()) if kind == language]


def tree_paths() -> list[str]:
    """Paths of the README's tree below src/longtake; folders end with a slash."""
    tree = next(text for text in blocks(README, "") if text.startswith("src/longtake/"))
    paths, folders = [], []
    for line in tree.splitlines()[1:]:
        name, indent = line.split()[0], len(line) - len(line.lstrip())
        if indent == 0:  # recipes/, docs/, ... beside the package
            break
        folders = folders[: indent // 2 - 1]
        paths.append("".join(folders) + name)
        if name.endswith("/"):
            folders.append(name)
    return paths


def package_files() -> list[str]:
    """Files of the package. A folder stands for its __init__.py."""
    found = []
    for path in PACKAGE.rglob("*"):
        if path.is_dir() or "__pycache__" in path.parts:
            continue
        relative = path.relative_to(PACKAGE).as_posix()
        if path.name != "__init__.py":
            found.append(relative)
        elif path.parent != PACKAGE:
            found.append(relative.removesuffix("__init__.py"))
    return sorted(found)


def test_the_tree_names_every_file() -> None:
    listed = tree_paths()
    missing = [file for file in package_files() if not any(fnmatch(file, entry) for entry in listed)]
    assert not missing, f"add to the tree in README.md: {missing}"


def test_the_tree_names_nothing_that_is_not_there() -> None:
    def is_there(entry: str) -> bool:
        if "*" not in entry:
            path = PACKAGE / entry
            return path.is_dir() if entry.endswith("/") else path.is_file()
        fixed = entry[: entry.index("*")]
        return not (PACKAGE / fixed).exists() or any(fnmatch(file, entry) for file in package_files())

    gone = [entry for entry in tree_paths() if not is_there(entry)]
    assert not gone, f"remove from the tree in README.md: {gone}"
    assert len(set(tree_paths())) == len(tree_paths())


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


def test_no_placeholder_is_left_in_the_readme() -> None:
    """Fails until every number has been measured and filled in."""
    assert re.findall(r"\{\{.*?\}\}", README.read_text()) == []


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


def signatures(tree: ast.Module) -> dict[str, str]:
    """Qualified name -> arguments and result of every function and method."""
    found = {}
    for node in tree.body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for item in inside:
            if isinstance(item, ast.FunctionDef):
                result = ast.unparse(item.returns) if item.returns else ""
                found[prefix + item.name] = f"({ast.unparse(item.args)}) -> {result}"
    return found


SEAMS = [text for text in blocks(ROOT / "docs" / "architecture.md", "python") if text.startswith("# ")]


@pytest.mark.parametrize("seam", SEAMS, ids=lambda seam: seam.splitlines()[0].removeprefix("# "))
def test_the_seams_are_those_of_the_code(seam: str) -> None:
    file = seam.splitlines()[0].removeprefix("# ")
    promised = signatures(ast.parse(seam))
    kept = signatures(ast.parse((PACKAGE / file).read_text()))
    assert promised
    for name, signature in promised.items():
        assert kept.get(name) == signature, f"{name} in {file}"


def test_the_recipe_in_the_documents_is_the_file() -> None:
    recipe = (ROOT / "recipes" / "smoke.py").read_text().strip()
    shown = [text.strip() for text in blocks(ROOT / "docs" / "training.md", "python")]
    assert recipe in shown, "copy recipes/smoke.py into docs/training.md"

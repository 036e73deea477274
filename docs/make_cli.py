"""Writes docs/cli.md from the live help and the JSON Schemas from the code; with --check, only checks them.

The help is read from the commands, not from their printed form, so a new release of the
printing library changes nothing.
"""

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from typer.main import get_command

from longtake.cli.main import app
from longtake.serve.messages import VERSION, Command, Event, Open
from longtake.studio.script import Script

PAGE = Path(__file__).with_name("cli.md")
SCHEMA = Path(__file__).with_name("script.schema.json")
PROTOCOL = Path(__file__).with_name("protocol.schema.json")


def page() -> str:
    """The whole reference as Markdown."""
    parts = [
        "# The command line\n\n<!-- written by `make docs` from the live help; do not edit -->\n",
        "Exit codes: 0 done, 2 a mistake that one line on stderr explains, 130 interrupted by Ctrl-C.\n",
    ]
    parts += section("longtake", get_command(app))
    return "\n".join(parts)


def section(name: str, command: Any) -> list[str]:
    """One command and those below it."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    below: dict[str, Any] = getattr(command, "commands", {})
    usage = [name, *(p.name.upper() for p in arguments), *(["[OPTIONS]"] if options else [])]
    usage += ["COMMAND"] if below else []
    parts = [f"## `{name}`\n", f"```\n{' '.join(usage)}\n```\n", f"{dedented(command.help)}\n"]
    if arguments or options:
        rows = [f"| `{p.name.upper()}` | {p.help} | |" for p in arguments]
        rows += [f"| `{flag(p)}` | {' '.join((p.help or '').split())} | {default(p)} |" for p in options]
        parts.append("\n".join(["| | | default |", "|---|---|---|", *rows]) + "\n")
    for below_name, below_command in below.items():
        parts += section(f"{name} {below_name}", below_command)
    return parts


def flag(option: Any) -> str:
    """`--seconds FLOAT`, or `--json` for a switch."""
    value = "" if option.is_flag else f" {option.metavar}".replace("|", r"\|")
    return ", ".join(option.opts) + value + (" ..." if option.multiple else "")


def default(option: Any) -> str:
    """What holds without the flag, where that is a plain value."""
    return "" if option.is_flag or option.default in (None, [], ()) else f"`{option.default!s}`"


def dedented(text: str | None) -> str:
    """A docstring as paragraphs."""
    return "\n".join(line.strip() for line in (text or "").strip().splitlines())


def protocol() -> dict[str, Any]:
    """The schema of all messages between page and server."""
    union = TypeAdapter(Open | Command | Event)
    return {"title": f"longtake protocol, version {VERSION}", **union.json_schema()}


def as_text(schema: dict[str, Any]) -> str:
    """JSON as it is committed."""
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    made = {PAGE: page(), SCHEMA: as_text(Script.model_json_schema()), PROTOCOL: as_text(protocol())}
    for path, text in made.items():
        if "--check" not in sys.argv[1:]:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            sys.exit(f"error: docs/{path.name} is not in step with the code; run: make docs")

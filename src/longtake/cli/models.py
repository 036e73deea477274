"""`longtake models`: which models ship with the package, how large they are, and where their files lie."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer


def models(
    *,
    json_lines: Annotated[bool, typer.Option("--json", help="One JSON object a line, one line a model.")] = False,
) -> None:
    """List the models that can be named, with parameters, file sizes and the hashes of their weights."""
    from longtake.weights.presets import list_models

    listed = list_models()
    for model in listed:
        if json_lines:
            sys.stdout.write(json.dumps(asdict(model), default=str) + "\n")
            continue
        sys.stdout.write(f"{model.name}: {model.description}\n  {model.path}\n")
        for net, count in model.parameters.items():
            sys.stdout.write(f"  {net:<10} {count:>13,} parameters   sha256 {model.sha256[net]}\n")
        for file, size in model.files.items():
            sys.stdout.write(f"  {file:<36} {size / 1e6:>8.2f} MB\n")
    if not listed and not json_lines:
        sys.stdout.write("no model ships with this installation; train one: longtake train tiny-world\n")

"""`longtake train`: runs the stages of a recipe that are not done."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from longtake.core.errors import InputError


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe's name (--list) or its file.", show_default=False)
    ] = None,
    *,
    list_recipes: Annotated[bool, typer.Option("--list", help="Name the recipes of the package.")] = False,
    copy: Annotated[
        str | None, typer.Option(metavar="NAME", help="Copy a recipe into this folder, to be changed and trained by.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the run; runs/RECIPE if not given.")
    ] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this stage (give as many as you like); all if not given."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="MODEL", help="Take codec and teacher of this model; only the student is trained."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Your own videos, from longtake data prepare, instead of the world."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="cpu, cuda or cuda:1; a GPU if there is one, if not given.")
    ] = None,
    max_minutes: Annotated[
        float | None, typer.Option(metavar="M", help="Stop after so long, at a point from which the next run goes on.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Render, encode and make pairs on this Ray cluster; auto: on a Ray started here."
        ),
    ] = None,
) -> None:
    """Train a model by a recipe: codec, teacher, ODE pairs, student.

    Run it again to resume: finished stages are skipped.
    """
    if list_recipes or copy is not None:
        _show_recipes() if copy is None else _copy_recipe(copy)
        return
    if recipe is None:
        raise InputError("say which recipe: a name of longtake train --list, or a .py file")
    if max_minutes is not None and not max_minutes > 0:
        raise InputError(f"max-minutes must be positive, got {max_minutes:g}")
    if start is not None and data is not None:
        raise InputError(
            f"clips in {data} go on from the model that they were made ready for; leave out --from or --data"
        )

    import torch

    from longtake.cli.cluster import tasks_on
    from longtake.cli.progress import Bars
    from longtake.core.bf16 import has_bf16_units
    from longtake.train.ranks import exit_without_teardown
    from longtake.train.run import load_recipe, run_recipe

    wanted = load_recipe(recipe)
    if start is not None:
        wanted = wanted.on_model(start)
    if data is not None:
        wanted = wanted.on_videos(data)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cpu" and wanted.in_bf16 and not has_bf16_units(torch.device(device)):
        sys.stderr.write("this CPU has no units for bf16: fp32 instead, slower than the recipe says\n")
    folder = out if out is not None else Path("runs") / Path(recipe).stem
    try:
        with Bars() as bars, tasks_on(ray, device) as tasks:
            complete = run_recipe(
                wanted,
                out=folder,
                progress=bars.update,
                stages=tuple(stage or ()),
                device=device,
                max_minutes=max_minutes,
                tasks=tasks,
            )
    except KeyboardInterrupt:
        sys.stderr.write(f"interrupted; {folder} keeps the last checkpoint, run the same command to go on\n")
        raise typer.Exit(130) from None
    if complete:
        sys.stdout.write(f"done: {folder}\n")
    else:
        sys.stdout.write(f"stopped at the time limit; run the same command to go on: {folder}\n")
    exit_without_teardown()


def _show_recipes() -> None:
    """Print a line for each recipe: its name, and the first line of its docstring."""
    import ast

    from longtake.train.run import packaged_recipes

    for name, path in packaged_recipes().items():
        first_line = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").splitlines()[0]
        sys.stdout.write(f"{name:26} {first_line}\n")


def _copy_recipe(name: str) -> None:
    """Copy a recipe of the package to the working directory.

    Raises:
        InputError: there is no such recipe, or a file of its name exists.
    """
    from longtake.train.run import find_recipe

    source = find_recipe(name)
    target = Path(source.name)
    if target.exists():
        raise InputError(f"{target} is there already; move it away first")
    target.write_bytes(source.read_bytes())
    sys.stdout.write(f"{target}: longtake train {target}\n")

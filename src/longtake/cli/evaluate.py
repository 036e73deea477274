"""`longtake evaluate`: evaluates models on the world they were trained on, in a table with pictures."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from longtake.cli.directing import Device
from longtake.core.errors import InputError
from longtake.core.limits import MAX_STEPS


def evaluate(
    recipe: Annotated[str, typer.Argument(help="The recipe whose world is asked about: its name or its file.")] = (
        "tiny-world"
    ),
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A model or its folder (give as many as you like); tiny-world if not given."),
    ] = None,
    teacher: Annotated[
        bool, typer.Option("--teacher", help="The first model's teacher, too: many steps, so it takes long.")
    ] = False,
    prompts: Annotated[int, typer.Option(metavar="N", help="Held-out prompts.")] = 32,
    seconds: Annotated[float, typer.Option(metavar="S", help="Length of the takes that show drift.")] = 30.0,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the report goes, and a judge is kept.")] = Path(
        "out/evaluation"
    ),
    judge: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A judge that was kept; one is trained if it is not there.")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="An earlier results.json of the same judge: exit code 1 if something has become worse."
        ),
    ] = None,
    steps: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="The first model at another number of steps, too; as many as you like."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an evaluation that was stopped: its finished rows are kept.")
    ] = False,
    device: Device = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Make the rows at the same time on this Ray cluster; auto: on one here."),
    ] = None,
) -> None:
    """Evaluate a model on held-out prompts: report.html and results.json.

    A judge is trained first, on the rendered truth (three minutes on two cores), and kept; or one is given.
    """
    if prompts < 2:
        raise InputError(f"--prompts must be at least 2, got {prompts}")
    if wrong := [num for num in steps or [] if not 1 <= num <= MAX_STEPS]:
        raise InputError(f"--steps must lie between 1 and {MAX_STEPS}, got {wrong[0]}")
    if not 10 <= seconds <= 3600:
        raise InputError(f"--seconds must lie between 10 and 3600, got {seconds:g}")
    import torch

    from longtake.cli.cluster import tasks_on
    from longtake.cli.progress import Bars
    from longtake.evals.evaluate import EvaluationPlan
    from longtake.evals.judge import judge_for
    from longtake.evals.report import earlier_results, regressions, write_report
    from longtake.evals.rows import Contender, RowTask, make_table, unreported
    from longtake.train.run import load_recipe

    world = load_recipe(recipe).world
    folders = model or ["tiny-world"]
    names = [_named(folder) for folder in folders]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"two models would both be called {twice.pop()} in the table; rename the folder of one")
    models = [Contender(name=name, model=_anywhere(folder)) for name, folder in zip(names, folders, strict=True)]
    models += [Contender(name=f"{names[0]}, {_steps(num)}", model=models[0].model, steps=num) for num in steps or []]
    if teacher:
        models.append(Contender(name=f"{names[0]}, teacher", model=models[0].model, teacher=True))
    first = models[0].open("cpu")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with Bars() as bars, tasks_on(ray, device) as tasks:
        seeing = judge_for(world, judge or out / "judge.safetensors", bars.update)
        earlier = None if against is None else earlier_results(against, seeing.digest)
        task = RowTask(
            world=world,
            judge=seeing,
            plan=EvaluationPlan(prompts=prompts, long_s=seconds),
            device=device,
            progress=bars.update if ray is None else unreported,
        )
        rows = make_table(models, task, tasks, out / "rows", resume=resume)
    about = {
        "model": ", ".join(names),
        "weights": first.digest,
        "prompts": prompts,
        "fps": first.fps,
        "world": world.hash,
        "judge": seeing.digest,
    }
    page = write_report(rows, seeing.accuracy, about, out)
    for row in rows:
        metrics = {name: str(value) for name, value in row.metrics.items()}
        sys.stdout.write(json.dumps({"name": row.name, **metrics}) + "\n")
    sys.stderr.write(f"{page}\n")
    if earlier is not None and (worse := regressions(rows, earlier)):
        sys.stderr.write("".join(f"worse: {line}\n" for line in worse))
        raise typer.Exit(1)


def _named(folder: str) -> str:
    """Name of a model in the table: `mine` for `runs/mine/model`."""
    *earlier, last = Path(folder).parts
    return earlier[-1] if last == "model" and earlier else last


def _anywhere(folder: str) -> str:
    """A folder's absolute path, as a task of a cluster works in another one; a model's name stays."""
    return str(Path(folder).resolve()) if Path(folder).is_dir() else folder


def _steps(num: int) -> str:
    return "1 step" if num == 1 else f"{num} steps"

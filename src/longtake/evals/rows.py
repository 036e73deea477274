"""Rows of an evaluation on disk, so that it can resume: one file each, named by a hash of all that determines the row.

A file holds what a report shows (metrics, drift, the first examples with their clips) and the judge's features.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from longtake.core.errors import InputError
from longtake.core.files import atomic
from longtake.core.tasks import Tasks
from longtake.evals.evaluate import Drift, EvaluationPlan, EvaluationRow, Example, model_row, truth_row
from longtake.evals.judge import Judge, Progress
from longtake.evals.statistics import Metric
from longtake.sample.model import Model, open_model
from longtake.worlds.scenes import WorldConfig

SHOWN = 8  # number of examples per row

METRICS = TypeAdapter(dict[str, Metric])
DRIFT = TypeAdapter(Drift | None)


def told(row: EvaluationRow) -> dict[str, object]:
    """Metrics of a row as values for JSON."""
    return {
        "name": row.name,
        "metrics": {name: asdict(value) for name, value in row.metrics.items()},
        "values": {name: list(each) for name, each in row.values.items()},
        "drift": None if row.drift is None else asdict(row.drift),
    }


def row_path(folder: Path, name: str, model: Model, world: WorldConfig, judge: Judge, plan: EvaluationPlan) -> Path:
    """Path of a model's row; it depends on all that determines the row except the machine and the program."""
    what = {
        "name": name,
        "weights": model.digest,
        "teacher": model.is_teacher,
        "preset": asdict(model.preset),
        "world": world.hash,
        "judge": judge.digest,
        "plan": asdict(plan),
    }
    digest = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()
    return folder / f"{digest[:16]}.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """A model of the table: its name there, its own name or folder, and how it is run."""

    name: str
    model: str
    steps: int | None = None  # number of denoising steps; None: the model's own
    teacher: bool = False

    def open(self, device: str) -> Model:
        """Open the model. Raises as `open_model`."""
        model = open_model(self.model, teacher=self.teacher, device=device)
        return model if self.steps is None else model.with_steps(self.steps)


def unreported(*_: object) -> None:
    """Ignore progress: a task of a cluster has no way to show it."""


@dataclass(frozen=True, kw_only=True)
class RowTask:
    """What all rows of a table have in common."""

    world: WorldConfig
    judge: Judge
    plan: EvaluationPlan
    device: str
    progress: Progress


def make_row(task: RowTask, item: tuple[Contender, EvaluationRow | None]) -> EvaluationRow:
    """Row of a model, given that of the rendered truth; without it, the truth's row, after the model's codec."""
    contender, truth = item
    model = contender.open(task.device)
    if truth is None:
        return truth_row(model, task.world, task.judge, task.plan, task.progress)
    return model_row(contender.name, model, task.world, task.judge, task.plan, truth, task.progress)


def make_table(
    contenders: Sequence[Contender], task: RowTask, tasks: Tasks, folder: Path, *, resume: bool
) -> list[EvaluationRow]:
    """Rows of the rendered truth and of all models, read back from `folder`, where each is stored when it is complete.

    Args:
        contenders: the models; the truth is encoded and decoded by the first one's codec.
        task: world, judge and extent of the evaluation.
        tasks: where the rows are made, each with a device of its own.
        folder: of the rows.
        resume: whether stored rows are used.

    Raises:
        InputError: a stored row is damaged.
    """

    def rows(these: Sequence[Contender], paths: Sequence[Path], truth: EvaluationRow | None) -> list[EvaluationRow]:
        missing = [i for i, path in enumerate(paths) if not (resume and path.exists())]
        with closing(tasks.map(make_row, task, ((these[i], truth) for i in missing), whole=True)) as made:
            for i, row in zip(missing, made, strict=True):
                write_row(paths[i], row)
        return [read_row(path) for path in paths]

    truth_paths: list[Path] = []
    paths: list[Path] = []
    for one in contenders:
        model = one.open("cpu")  # opened for its digest alone
        if not paths:
            truth_paths.append(row_path(folder, "", model, task.world, task.judge, task.plan))
        paths.append(row_path(folder, one.name, model, task.world, task.judge, task.plan))
    truth = rows(contenders[:1], truth_paths, None)
    return [*truth, *rows(contenders, paths, truth[0])]


def write_row(path: Path, row: EvaluationRow) -> None:
    """Write a row to a file, which appears whole or not at all."""
    few = row.examples[:SHOWN]
    about = {**told(row), "examples": [[one.prompt, dict(one.expected), dict(one.answers)] for one in few]}
    tensors = {f"clip {i}": one.clip for i, one in enumerate(few)}
    if row.features is not None:
        tensors["features"] = row.features
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as part:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, {"row": json.dumps(about)})


def read_row(path: Path) -> EvaluationRow:
    """Read a row from a file.

    Raises:
        InputError: the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["row"])
            tensors: Mapping[str, torch.Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        examples = [
            Example(prompt=prompt, clip=tensors[f"clip {i}"], expected=expected, answers=answers)
            for i, (prompt, expected, answers) in enumerate(about["examples"])
        ]
        return EvaluationRow(
            name=about["name"],
            metrics=METRICS.validate_python(about["metrics"]),
            values=about["values"],
            drift=DRIFT.validate_python(about["drift"]),
            examples=examples,
            features=tensors.get("features"),
        )
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); remove it, and its row is made again") from error

"""Rows of an evaluation on disk, so that it can resume: one file each, named by a hash of all that determines the row.

A file holds what a report shows (metrics, drift, the first examples with their clips) and the judge's features.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from longtake.core.errors import InputError
from longtake.core.files import atomic
from longtake.evals.evaluate import Drift, EvaluationPlan, EvaluationRow, Example
from longtake.evals.judge import Judge
from longtake.evals.statistics import Metric
from longtake.sample.model import Model
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


def kept(path: Path, make: Callable[[], EvaluationRow], *, resume: bool) -> EvaluationRow:
    """The row stored at `path` if there is one and `resume` is set; else the result of `make`, stored there.

    Raises:
        InputError: the stored row is damaged.
    """
    if resume and path.exists():
        return read_row(path)
    row = make()
    write_row(path, row)
    return row


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

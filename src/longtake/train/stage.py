"""Common parts of all stages: their folders, resources and provenance."""

import hashlib
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from longtake.core.bf16 import has_bf16_units
from longtake.core.configs import Preset
from longtake.core.errors import TrainingError
from longtake.core.tasks import Tasks
from longtake.core.version import __version__
from longtake.nets.low_rank import adapters, merged
from longtake.nets.text import TextEncoder
from longtake.train.health import Health
from longtake.train.loop import Limits, LoopConfig, train
from longtake.train.ranks import ALONE, Ranks, reshard
from longtake.train.trainee import Trainee
from longtake.weights.checkpoint import save_weights, write_json

Net = TypeVar("Net", bound=nn.Module)
Progress = Callable[[str, int, int, Mapping[str, float]], None]  # (stage, done, of, metrics) -> None


@dataclass(frozen=True, kw_only=True)
class Context:
    """One training run: its folder, preset, device, limits, progress callback, text encoder, tasks and ranks."""

    out: Path
    preset: Preset
    device: torch.device
    limits: Limits
    progress: Progress
    encoder: TextEncoder
    tasks: Tasks  # runner of computations that need no state of the stage, such as shards
    ranks: Ranks = ALONE  # ranks that train together

    def folder(self, stage: str) -> Path:
        folder = self.out / stage
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def begin(self, stage: str, *config: object, after: Sequence[str] = ()) -> Path:
        """Write a stage's configuration into its folder and return the folder.

        Args:
            stage: name of the stage.
            config: dataclasses that determine its result.
            after: names of the stages whose results it reads.

        Raises:
            TrainingError: a stage in `after` is not finished, or the folder was made with another configuration or
                from other results.
        """
        for name in after:
            if not self.done(name):
                raise TrainingError(f"{stage} needs {name}, which is not finished in {self.out}; run it first")
        folder = self.folder(stage)
        path = folder / "config.json"
        read = {name: sha256(self.folder(name) / "provenance.json") for name in after}
        wanted = json.loads(json.dumps({"config": config, "after": read}, default=_plain))
        if path.exists() and json.loads(path.read_text()) != wanted:
            raise TrainingError(
                f"{folder} was made with another configuration, or from stages that were made anew since; remove "
                "it to train the stage anew, or choose another --out"
            )
        self.ranks.wait()  # all ranks compare before the first one writes
        if self.ranks.is_first:
            write_json(path, wanted)
        self.ranks.wait()
        return folder

    def finish(self, stage: str, **facts: object) -> None:
        """Mark a stage as done by writing its provenance, `facts` included."""
        provenance = {
            "stage": stage,
            "config_sha256": sha256(self.folder(stage) / "config.json"),
            "longtake": __version__,
            "torch": torch.__version__,
            "device": str(self.device),
            "machine": platform.machine(),
            "bf16_units": has_bf16_units(self.device),
            "processes": self.ranks.size,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **facts,
        }
        self.ranks.wait()
        if self.ranks.is_first:
            write_json(self.folder(stage) / "provenance.json", provenance)
        self.ranks.wait()

    def done(self, stage: str) -> bool:
        return (self.out / stage / "provenance.json").exists()


def train_and_keep(
    context: Context,
    stage: str,
    loop: LoopConfig,
    trainees: Sequence[Trainee],
    *,
    sheet: Callable[[Path], None] | None = None,
    health: Health | None = None,
    facts: Callable[[], Mapping[str, object]] = dict,
) -> bool:
    """Train, save the averaged weights of the first network under its name, and mark the stage as done.

    Args:
        context: the training run.
        stage: name of the stage.
        loop: configuration of the training loop.
        trainees: networks to train; the first is saved and must have an average.
        sheet: function that writes a sample sheet to a path, called every `loop.sample_every` steps.
        health: checks that stop the run when a metric is out of bounds.
        facts: function that returns additional provenance, called when the training is complete.

    Returns:
        False when a limit stopped it first: the weights so far are saved, and the next call resumes the stage.
    """
    folder = context.folder(stage)
    kept = trainees[0]
    assert kept.ema is not None, "only averaged networks are kept"
    if loop.compile:
        context.progress(f"{stage}: compiling, minutes before the first step", 0, 1, {})

    def sample(step: int) -> None:
        context.progress(f"{stage}: sample sheet", 0, 1, {})
        assert sheet is not None
        sheet(folder / f"samples_{step:06d}.png")
        context.progress(f"{stage}: sample sheet", 1, 1, {})

    complete = train(
        folder,
        loop,
        list(trainees),
        limits=context.limits,
        progress=lambda done, of, values: context.progress(stage, done, of, values),
        sample=None if sheet is None else sample,
        health=health,
        ranks=context.ranks,
    )
    reshard(kept.net)
    kept.ema.copy_to(kept.net)
    whole = context.ranks.whole(kept.net.state_dict())
    if context.ranks.is_first:
        save_weights(folder, kept.name, merged(whole))
        if low_rank := adapters(whole):
            save_weights(folder, "lora", low_rank)
    if complete:
        context.finish(stage, **facts())
    return complete


def seeded(seed: int, make: Callable[[], Net]) -> Net:
    """Build a network whose initial weights depend on `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def sha256(path: Path) -> str:
    """SHA-256 of a small file, as hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _plain(config: Any) -> dict[str, Any]:
    return asdict(config)

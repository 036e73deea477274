"""Checkpoints of a stage: weights, optimizer states and averages in a flat mapping by name.

A single process writes one file, `state.pt`. Several ranks write their shards into `state-STEP/`
(torch.distributed.checkpoint) while training continues. Either can be read by any number of ranks.
"""

import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.optim import Optimizer

from longtake.core.errors import TrainingError
from longtake.core.files import atomic
from longtake.train.ranks import Ranks, shard_like
from longtake.train.trainee import Trainee

Optimizers = Mapping[str, Sequence[Optimizer]]  # name of the trainee -> its optimizers


def checkpoints_in(folder: Path) -> list[Path]:
    """Files that mark the checkpoints of a stage's folder."""
    return [p for p in (folder / "state.pt", *folder.glob("state-*/.metadata")) if p.exists()]


@dataclass(kw_only=True)
class Checkpoints:
    """Checkpoints of one stage on disk."""

    folder: Path
    trainees: Sequence[Trainee]
    optimizers: Optimizers
    ranks: Ranks
    _writing: tuple[Path, Future[Any]] | None = field(default=None, init=False)

    def load(self) -> int:
        """Load the newest checkpoint and return its step, or 0 when there is none.

        Raises:
            TrainingError: the checkpoint is damaged or belongs to another configuration.
        """
        found = checkpoints_in(self.folder)
        if not found:
            return 0
        path = max(found, key=lambda p: p.stat().st_mtime)
        try:
            if path.name == "state.pt":
                return self._take(torch.load(path, map_location="cpu", weights_only=True))
            return self._take(self._read(path.parent))
        except (KeyError, RuntimeError, ValueError, EOFError, OSError, UnpicklingError, CheckpointException) as err:
            raise TrainingError(f"{path} cannot be resumed ({err}); remove its folder to train the stage anew") from err

    def save(self, step: int) -> None:
        """Write a checkpoint; the previous one is removed only when the new one is complete.

        Raises:
            TrainingError: this checkpoint, or the previous one, cannot be written.
        """
        self.settle()
        state = self._state(step)
        try:
            if self.ranks.mesh is None:
                with atomic(self.folder / "state.pt") as part:
                    torch.save(state, part)
                self._remove_all_but("state.pt")
            else:
                path = self.folder / f"state-{step:08d}"
                self._writing = path, cast("Future[Any]", async_save(state, checkpoint_id=path))
        except (OSError, RuntimeError) as err:  # torch's own writer reports a full disk as RuntimeError
            raise _not_written(self.folder, err) from err

    def settle(self) -> None:
        """Wait for the checkpoint that is being written, and then remove older ones.

        Raises:
            TrainingError: the checkpoint could not be written.
        """
        if self._writing is None:
            return
        (path, future), self._writing = self._writing, None
        try:
            future.result()
        except (OSError, RuntimeError, CheckpointException) as err:
            raise _not_written(path, err) from err
        self.ranks.wait()
        if self.ranks.is_first:
            self._remove_all_but(path.name)
        self.ranks.wait()

    def _remove_all_but(self, name: str) -> None:
        for old in self.folder.glob("state[.-]*"):
            if old.name == name:
                continue
            if old.is_dir():
                shutil.rmtree(old)
            else:
                old.unlink()

    def _state(self, step: int) -> dict[str, Any]:
        """Tensors by name: `student/net/...`, `student/optim/.../exp_avg`, `student/ema/...`."""
        state: dict[str, Any] = {"step": torch.tensor(step)}
        for t in self.trainees:
            state |= {f"{t.name}/net/{name}": tensor for name, tensor in t.net.state_dict().items()}
            for name, p, optimizer in self._parameters(t):
                state |= {f"{t.name}/optim/{name}/{key}": value for key, value in optimizer.state[p].items()}
            if t.ema is not None:
                state |= {f"{t.name}/ema/{name}": tensor for name, tensor in t.ema.shadow.items()}
                state[f"{t.name}/averaged"] = torch.tensor(t.ema.num_updates)
        return state

    def _read(self, folder: Path) -> dict[str, Any]:
        """Read the shards of a folder, redistributed over the current ranks."""
        stored = FileSystemReader(folder).read_metadata().state_dict_metadata
        state = self._state(0)
        for key, _, p, _ in self._remembered(stored):
            same = cast("Any", stored[key]).size == p.shape
            state[key] = torch.zeros_like(p.detach()) if same else torch.zeros(())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is")  # warning about reading in a single process
            load(state, checkpoint_id=folder)
        return state

    def _take(self, state: Mapping[str, Any]) -> int:
        for t in self.trainees:
            own = t.net.state_dict()
            for name, tensor in own.items():
                tensor.copy_(shard_like(state[f"{t.name}/net/{name}"], tensor))
            if t.ema is not None:
                for name, tensor in t.ema.shadow.items():
                    tensor.copy_(shard_like(state[f"{t.name}/ema/{name}"], tensor))
                t.ema.num_updates = int(state[f"{t.name}/averaged"])
        for key, what, p, optimizer in self._remembered(state):
            value = state[key]
            optimizer.state[p][what] = shard_like(value, p) if value.shape == p.shape else value
        return int(state["step"])

    def _remembered(self, keys: Iterable[str]) -> Iterator[tuple[str, str, Tensor, Optimizer]]:
        """Yield those of `keys` that are optimizer states: key, kind of state, parameter, and its optimizer."""
        owned = {f"{t.name}/optim/{name}": (p, o) for t in self.trainees for name, p, o in self._parameters(t)}
        for key in keys:
            start, _, what = key.rpartition("/")
            if start in owned:
                yield (key, what, *owned[start])

    def _parameters(self, t: Trainee) -> list[tuple[str, Tensor, Optimizer]]:
        """Name, value and optimizer of each trained parameter."""
        owner = {p: o for o in self.optimizers[t.name] for group in o.param_groups for p in group["params"]}
        return [(name, p, owner[p]) for name, p in t.net.named_parameters() if p in owner]


def _not_written(path: Path, err: BaseException) -> TrainingError:
    return TrainingError(
        f"the checkpoint {path} cannot be written ({err}); the one before is kept: free some space and start again"
    )

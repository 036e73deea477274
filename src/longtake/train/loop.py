"""The loop every training stage shares: stepping, accumulation, averages, checkpoints, logs. Nothing about losses.

A stage is resumable bit for bit because nothing random is remembered: whatever a step draws comes from
`rng_for(seed, (stage, step, micro))`.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer

from longtake.core.errors import TrainingError
from longtake.core.noise import rng_for
from longtake.train.ema import EMA
from longtake.train.health import Health
from longtake.train.optim import OptimConfig, optimizers_for

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig:
    """How long a stage trains and how often it reports."""

    steps: int
    optim: OptimConfig
    ema_decay: float = 0.999
    accumulate: int = 1  # micro-batches a step
    bf16: bool = False  # matrix products and convolutions in bf16, sums and weights in fp32
    checkpoint_minutes: float = 3.0
    log_every: int = 10  # steps
    sample_every: int = 0  # steps between sample sheets; 0: none
    compile: bool = False  # the network as one compiled program; needs a C++ compiler, and minutes at the start
    seed: int = 0

    def program(self, forward: Callable[P, T]) -> Callable[P, T]:
        """What a training step calls for `forward`: itself, or compiled, once for each shape it is called with.

        Sample sheets go on calling the network as it is: their shapes would each cost a compilation.

        Raises:
            TrainingError: `compile` is set where there is no C++ compiler.
        """
        if not self.compile:
            return forward
        if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
            raise TrainingError(
                "compile=True needs a C++ compiler, and neither g++ nor clang++ is on the path; "
                "install one, or set compile=False in the recipe's LoopConfig (slower, the same training)"
            )
        return torch.compile(forward, dynamic=False)


@dataclass(kw_only=True)
class Trainee:
    """One network in training. Most stages have one; DMD has a student and a critic."""

    name: str
    net: nn.Module
    optim: OptimConfig
    loss: Callable[[int, torch.Generator], tuple[torch.Tensor, Mapping[str, float]]]
    every: int = 1  # steps between updates of this network
    ema: EMA | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """When to stop early, asked between steps."""

    deadline: float = math.inf  # time.monotonic() seconds

    def reached(self) -> bool:
        return time.monotonic() > self.deadline


class Log:
    """Events as JSON lines, and as curves where tensorboard is installed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = (folder / "events.jsonl").open("a")
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  (an extra)
        except ImportError:
            self.board = None
        else:
            self.board = SummaryWriter(str(folder))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.file.write(json.dumps({"step": step, "time": round(time.time(), 1), **values}) + "\n")
        self.file.flush()
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)

    def close(self) -> None:
        self.file.close()
        if self.board is not None:
            self.board.close()


def train(
    folder: Path,
    config: LoopConfig,
    trainees: list[Trainee],
    *,
    limits: Limits,
    progress: Callable[[int, int, Mapping[str, float]], None],
    sample: Callable[[int], None] | None = None,
    health: Health | None = None,
) -> bool:
    """Train until `config.steps` or a limit; False when a limit came first.

    State is kept in `folder/state.pt` and taken up again from there.

    Raises:
        TrainingError: a loss is not finite, or `health` says that the run is sick; the last state stays on disk.
    """
    optimizers = {t.name: optimizers_for(t.net, t.optim, bf16=config.bf16) for t in trainees}
    path = folder / "state.pt"
    step = _load(path, trainees, optimizers) if path.exists() else 0
    log = Log(folder)
    saved_at = time.monotonic()
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    try:
        while step < config.steps:
            for t in trainees:
                if (step + 1) % t.every:  # after the others have had their steps
                    continue
                for name, value in _update(t, optimizers[t.name], step, config).items():
                    sums[name] = sums.get(name, 0.0) + value
                    counts[name] = counts.get(name, 0) + 1
            step += 1
            if step % config.log_every == 0 or step == config.steps:
                means = {name: sums[name] / counts[name] for name in sums}
                log.write(step, means)
                progress(step, config.steps, means)
                if health is not None:
                    health.check(step, means)
                sums, counts = {}, {}
            if sample is not None and config.sample_every and step % config.sample_every == 0:
                sample(step)
            stop = limits.reached()
            if stop or time.monotonic() - saved_at > 60 * config.checkpoint_minutes:
                _save(path, step, trainees, optimizers)
                saved_at = time.monotonic()
            if stop and step < config.steps:
                return False
    finally:
        log.close()
    _save(path, step, trainees, optimizers)
    return True


def _update(trainee: Trainee, optimizers: list[Optimizer], step: int, config: LoopConfig) -> dict[str, float]:
    """One optimiser step of one network, over `accumulate` micro-batches."""
    logged: dict[str, float] = {}
    for micro in range(config.accumulate):
        rng = rng_for(config.seed, (trainee.name, step, micro))
        with precision(trainee.net, bf16=config.bf16):
            loss, values = trainee.loss(step, rng)
        _check_finite(loss.detach(), f"the loss of {trainee.name}", step)
        (loss / config.accumulate).backward()
        for name, value in values.items():
            key = f"{trainee.name}/{name}"
            logged[key] = logged.get(key, 0.0) + value / config.accumulate
    norm = nn.utils.clip_grad_norm_(trainee.net.parameters(), trainee.optim.max_grad_norm)
    _check_finite(norm, f"the gradient of {trainee.name}", step)
    factor = trainee.optim.factor(step, config.steps)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if trainee.ema is not None:
        trainee.ema.update(trainee.net)
    return {**logged, f"{trainee.name}/grad_norm": float(norm)}


@contextmanager
def precision(net: nn.Module, *, bf16: bool) -> Iterator[None]:
    """How a forward pass in training computes, on the device of `net`.

    Weights are cast anew at each use: a cast that was kept from a part without gradient would have none. On a
    CPU, attention is plain matrix products: the backward pass of the fused one takes a third longer in fp32 and
    ten times as long in bf16 (at 540 tokens).
    """
    device = next(net.parameters()).device.type
    with ExitStack() as stack:
        stack.enter_context(torch.autocast(device, torch.bfloat16, enabled=bf16, cache_enabled=False))
        if device == "cpu":
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


def _check_finite(value: torch.Tensor, what: str, step: int) -> None:
    """Stop before a sick step is taken: the last checkpoint stays sound."""
    if not torch.isfinite(value):
        raise TrainingError(
            f"{what} is {value.item()} at step {step}; lower the learning rate in the recipe, remove the stage's "
            "folder and train it anew"
        )


def _save(path: Path, step: int, trainees: list[Trainee], optimizers: dict[str, list[Optimizer]]) -> None:
    """Write the whole state; the old one is replaced only by a complete new one."""
    state: dict[str, Any] = {"step": step}
    for t in trainees:
        state[t.name] = {
            "net": t.net.state_dict(),
            "optimizers": [o.state_dict() for o in optimizers[t.name]],
            "ema": None if t.ema is None else t.ema.shadow,
            "num_updates": 0 if t.ema is None else t.ema.num_updates,
        }
    part = path.with_suffix(".part")
    try:
        torch.save(state, part)
        part.replace(path)
    except (OSError, RuntimeError) as err:  # torch's own writer reports a full disk as RuntimeError
        part.unlink(missing_ok=True)
        raise TrainingError(
            f"the checkpoint {path} cannot be written ({err}); the one before is kept: free some space and start again"
        ) from err


def _load(path: Path, trainees: list[Trainee], optimizers: dict[str, list[Optimizer]]) -> int:
    """Take up the state of `path`; the step reached.

    Raises:
        TrainingError: the file is damaged or belongs to another configuration.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        for t in trainees:
            mine = state[t.name]
            t.net.load_state_dict(mine["net"])
            for optimizer, saved in zip(optimizers[t.name], mine["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            if t.ema is not None:
                for name, tensor in mine["ema"].items():
                    t.ema.shadow[name].copy_(tensor)
                t.ema.num_updates = mine["num_updates"]
    except (KeyError, RuntimeError, ValueError, EOFError, OSError, UnpicklingError) as err:
        raise TrainingError(f"{path} cannot be resumed ({err}); remove its folder to train the stage anew") from err
    return state["step"]

"""Training loop of all stages: optimizer steps, gradient accumulation, averages, checkpoints and logs, but no losses.

A stage resumes bit for bit because no random state is stored: all draws of a micro-batch come from
`rng_for(seed, (trainee, step, micro))`.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer

from longtake.core.bf16 import has_bf16_units
from longtake.core.compiler import has_compiler
from longtake.core.errors import TrainingError
from longtake.core.noise import rng_for
from longtake.train.health import Health
from longtake.train.optim import OptimConfig, optimizers_for
from longtake.train.ranks import ALONE, Ranks, gather
from longtake.train.state import Checkpoints
from longtake.train.trainee import Trainee

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig:
    """Configuration of a stage's training loop: length, optimizer, precision, checkpoints and reports."""

    steps: int
    optim: OptimConfig
    ema_decay: float = 0.999
    accumulate: int = 1  # micro-batches per optimizer step, divided among the ranks
    checkpoint_activations: bool = False  # activation checkpointing: less memory, a third more computation
    bf16: bool = False  # products and convolutions in bf16 where the hardware supports it; sums and weights in fp32
    checkpoint_minutes: float = 3.0
    log_every: int = 10  # number of steps between reports
    sample_every: int = 0  # number of steps between sample sheets; 0: none
    compile: bool = False  # compilation of the network; needs a C++ compiler, and minutes at the start
    seed: int = 0

    def maybe_compile(self, forward: Callable[P, T]) -> Callable[P, T]:
        """`forward` itself or, if `compile` is set, its compiled version, compiled once per input shape.

        Sample sheets use the uncompiled network, since each of their shapes would cost a compilation.

        Raises:
            TrainingError: `compile` is set where there is no C++ compiler.
        """
        if not self.compile:
            return forward
        if not has_compiler():
            raise TrainingError(
                "compile=True needs a C++ compiler, and neither g++ nor clang++ is on the path; "
                "install one, or set compile=False in the recipe's LoopConfig (slower, the same training)"
            )
        return torch.compile(forward, dynamic=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Conditions for stopping early, checked between steps."""

    deadline: float = math.inf  # latest time, in seconds of time.monotonic()

    def reached(self) -> bool:
        return time.monotonic() > self.deadline


class Log:
    """Training log as JSON lines, and as TensorBoard curves where tensorboard is installed."""

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
    ranks: Ranks = ALONE,
) -> bool:
    """Train until `config.steps` or a limit; return False when a limit came first.

    Checkpoints are written to `folder`, and training resumes from the newest one there.

    Raises:
        TrainingError: a loss or gradient is not finite, `health` finds a metric out of bounds, or the step's
            micro-batches cannot be divided among the ranks; the last checkpoint stays on disk.
    """
    optimizers = {t.name: optimizers_for(t.net, t.optim) for t in trainees}
    kept = Checkpoints(folder=folder, trainees=trainees, optimizers=optimizers, ranks=ranks)
    step = kept.load()
    log = Log(folder) if ranks.is_first else None
    saved_at = time.monotonic()
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    try:
        while step < config.steps:
            for t in trainees:
                if (step + 1) % t.every:  # its update comes last in each period, after those of the others
                    continue
                for name, value in _update(t, optimizers[t.name], step, config, ranks).items():
                    sums[name] = sums.get(name, 0.0) + value
                    counts[name] = counts.get(name, 0) + 1
            step += 1
            if step % config.log_every == 0 or step == config.steps:
                means = ranks.mean({name: sums[name] / counts[name] for name in sums})
                if log is not None:
                    log.write(step, means)
                progress(step, config.steps, means)
                if health is not None:
                    health.check(step, means)
                sums, counts = {}, {}
            if sample is not None and config.sample_every and step % config.sample_every == 0:
                sample(step)
            stop = ranks.any_rank(limits.reached())
            if stop or ranks.any_rank(time.monotonic() - saved_at > 60 * config.checkpoint_minutes):
                kept.save(step)
                saved_at = time.monotonic()
            if stop and step < config.steps:
                kept.settle()
                return False
    finally:
        if log is not None:
            log.close()
    kept.save(step)
    kept.settle()
    return True


def _update(
    trainee: Trainee, optimizers: list[Optimizer], step: int, config: LoopConfig, ranks: Ranks
) -> dict[str, float]:
    """One optimizer step of one network, over this rank's share of the micro-batches; returns the values to log."""
    logged: dict[str, float] = {}
    mine = ranks.micro_batches(config.accumulate)
    for micro in mine:
        rng = rng_for(config.seed, (trainee.name, step, micro))
        with precision(trainee.net, bf16=config.bf16):
            loss, values = trainee.loss(step, rng)
        _check_finite(loss.detach(), f"the loss of {trainee.name}", step)
        with attention_kernel(loss.device):  # activation checkpointing recomputes with the same kernel
            (loss / len(mine)).backward()  # gradients are averaged over the ranks
        for name, value in values.items():
            key = f"{trainee.name}/{name}"
            logged[key] = logged.get(key, 0.0) + value / len(mine)
    norm = gather(nn.utils.clip_grad_norm_(trainee.net.parameters(), trainee.optim.max_grad_norm))
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
    """Context for a forward pass in training: autocast to bf16 where requested and supported, and `attention_kernel`.

    Casts of weights are not cached: a cast made without gradient would be reused where the gradient is needed.
    """
    device = next(net.parameters()).device
    enabled = bf16 and has_bf16_units(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=False), attention_kernel(device):
        yield


def attention_kernel(device: torch.device) -> AbstractContextManager[object]:
    """Context that selects the attention kernel of training.

    On a CPU, this is plain matrix products: the backward pass of the fused kernel takes a third longer in fp32 and ten
    times as long in bf16 (at 540 tokens).
    """
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def _check_finite(value: torch.Tensor, what: str, step: int) -> None:
    """Raise a TrainingError for a value that is not finite, before it reaches weights or a checkpoint."""
    if not torch.isfinite(value):
        raise TrainingError(
            f"{what} is {value.item()} at step {step}; lower the learning rate in the recipe, remove the stage's "
            "folder and train it anew"
        )

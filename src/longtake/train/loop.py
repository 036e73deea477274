"""The loop every training stage shares: stepping, accumulation, averages, checkpoints, logs. Nothing about losses.

A stage is resumable bit for bit because nothing random is remembered: whatever a step draws comes from
`rng_for(seed, (stage, step, micro))`.
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
    """How long a stage trains and how often it reports."""

    steps: int
    optim: OptimConfig
    ema_decay: float = 0.999
    accumulate: int = 1  # micro-batches a step; several processes share them
    checkpoint_activations: bool = False  # compute blocks again in the backward pass: less memory, a third more work
    bf16: bool = False  # products and convolutions in bf16, where there are units for it; sums and weights in fp32
    checkpoint_minutes: float = 3.0
    log_every: int = 10  # steps
    sample_every: int = 0  # steps between sample sheets; 0: none
    compile: bool = False  # the network as one compiled program; needs a C++ compiler, and minutes at the start
    seed: int = 0

    def maybe_compile(self, forward: Callable[P, T]) -> Callable[P, T]:
        """What a training step calls for `forward`: itself, or compiled, once for each shape it is called with.

        Sample sheets go on calling the network as it is: their shapes would each cost a compilation.

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
    ranks: Ranks = ALONE,
) -> bool:
    """Train until `config.steps` or a limit; False when a limit came first.

    State is kept in `folder` and taken up again from there.

    Raises:
        TrainingError: a loss is not finite, `health` says that the run is sick, or the step's micro-batches cannot be
            divided among the ranks; the last state stays on disk.
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
                if (step + 1) % t.every:  # after the others have had their steps
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
    """One optimiser step of one network, over this rank's share of the micro-batches."""
    logged: dict[str, float] = {}
    mine = ranks.micro_batches(config.accumulate)
    for micro in mine:
        rng = rng_for(config.seed, (trainee.name, step, micro))
        with precision(trainee.net, bf16=config.bf16):
            loss, values = trainee.loss(step, rng)
        _check_finite(loss.detach(), f"the loss of {trainee.name}", step)
        with attention_kernel(loss.device):  # what is recomputed is computed as it was
            (loss / len(mine)).backward()  # the ranks' gradients are averaged
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
    """How a forward pass in training computes, on the device of `net`.

    Weights are cast anew at each use: a cast that was kept from a part without gradient would have none.
    """
    device = next(net.parameters()).device
    enabled = bf16 and has_bf16_units(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=False), attention_kernel(device):
        yield


def attention_kernel(device: torch.device) -> AbstractContextManager[object]:
    """How attention is computed in training.

    On a CPU, as plain matrix products: the backward pass of the fused kernel takes a third longer in fp32 and ten
    times as long in bf16 (at 540 tokens).
    """
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def _check_finite(value: torch.Tensor, what: str, step: int) -> None:
    """Stop before a sick step is taken: the last checkpoint stays sound."""
    if not torch.isfinite(value):
        raise TrainingError(
            f"{what} is {value.item()} at step {step}; lower the learning rate in the recipe, remove the stage's "
            "folder and train it anew"
        )

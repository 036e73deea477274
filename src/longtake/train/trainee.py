"""A network in training with its optimizer, loss and average."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from longtake.train.ema import EMA
from longtake.train.optim import OptimConfig


@dataclass(kw_only=True)
class Trainee:
    """One network in training; most stages have one, DMD has a student and a critic."""

    name: str
    net: nn.Module
    optim: OptimConfig
    loss: Callable[[int, torch.Generator], tuple[torch.Tensor, Mapping[str, float]]]  # (step, rng) -> loss, metrics
    every: int = 1  # number of steps per update of this network
    ema: EMA | None = None

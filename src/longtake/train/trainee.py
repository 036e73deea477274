"""A network in training, and what goes with it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from longtake.train.ema import EMA
from longtake.train.optim import OptimConfig


@dataclass(kw_only=True)
class Trainee:
    """One network in training. Most stages have one; DMD has a student and a critic."""

    name: str
    net: nn.Module
    optim: OptimConfig
    loss: Callable[[int, torch.Generator], tuple[torch.Tensor, Mapping[str, float]]]
    every: int = 1  # steps between updates of this network
    ema: EMA | None = None

"""Exponential moving average of the trained weights, used for sampling and export."""

import torch
from torch import nn


class EMA:
    """Exponential moving average of a network's trainable parameters.

    shadow <- d shadow + (1 - d) weights, with d = min(decay, (1 + n) / (10 + n)) after n updates
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self.shadow = {name: p.detach().clone() for name, p in net.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        weights = dict(net.named_parameters())
        for name, average in self.shadow.items():
            average.lerp_(weights[name], 1 - decay)

    @torch.no_grad()
    def copy_to(self, net: nn.Module) -> None:
        """Overwrite a network's weights with the average."""
        weights = dict(net.named_parameters())
        for name, average in self.shadow.items():
            weights[name].copy_(average)

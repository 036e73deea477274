"""Low-rank adapters (LoRA, Hu et al. 2021): learned low-rank corrections of frozen linear layers.

    y = W x + b + (alpha / r) U D x        D [r, in], U [out, r], U = 0 at the start; W and b are frozen

Files hold alpha beside U and D; if it is missing, alpha = r.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from longtake.core.errors import ConfigError
from longtake.nets.dit import DiT
from longtake.nets.linears import replace_linears

DOWN, UP, ALPHA = "lora_down", "lora_up", "lora_alpha"
PUBLISHED = {DOWN: "lora_A.weight", UP: "lora_B.weight", ALPHA: "alpha"}  # suffixes in published adapters for Wan
PREFIX = "diffusion_model."
SOURCE = "source_embedding."  # prefix of the source embedding, which is trained along with the adapters


class LowRankLinear(nn.Linear):
    """Linear layer that takes the weights of another one and adds a correction of rank r."""

    lora_alpha: Tensor

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.lora_down = nn.Parameter(torch.empty(rank, base.in_features))
        self.lora_up = nn.Parameter(torch.zeros(base.out_features, rank))
        self.register_buffer(ALPHA, torch.tensor(float(alpha)))
        self.scale = alpha / rank
        nn.init.normal_(self.lora_down, std=base.in_features**-0.5)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (as in nn.Linear)
        correction = functional.linear(functional.linear(input, self.lora_down), self.lora_up)
        return super().forward(input) + self.scale * correction


def add_low_rank(dit: DiT, rank: int, alpha: float | None = None) -> DiT:
    """Freeze a network, and add a trainable low-rank adapter to every linear layer of its blocks.

    Args:
        dit: the network, changed in place.
        rank: rank r of the adapters.
        alpha: numerator of their scale alpha / r; None: the rank.

    Raises:
        ConfigError: the rank is not between 1 and the network's width.
    """
    if not 1 <= rank <= dit.config.dim:
        raise ConfigError(f"a LoRA's rank is between 1 and the network's width, {dit.config.dim}; got {rank}")
    dit.requires_grad_(requires_grad=False)
    replace_linears(dit.blocks, lambda linear: LowRankLinear(linear, rank, rank if alpha is None else alpha))
    return dit


def merged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Merge the adapters of a state dict into its weights, under the names of a network without adapters."""
    found = dict(state)
    for name in [key for key in state if key.endswith(DOWN)]:
        layer = name.removesuffix(DOWN)
        down, up = found.pop(name), found.pop(f"{layer}{UP}")
        alpha = found.pop(f"{layer}{ALPHA}", torch.tensor(float(len(down))))
        found[f"{layer}weight"] = found[f"{layer}weight"] + float(alpha) / len(down) * (up @ down)
    return found


def adapters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Adapters of a state dict, and its source embedding if any, under the names of published adapters for Wan."""
    found = {
        f"{PREFIX}{key.removesuffix(mine)}{theirs}": tensor
        for key, tensor in state.items()
        for mine, theirs in PUBLISHED.items()
        if key.endswith(mine)
    }
    return found | {f"{PREFIX}{key}": tensor for key, tensor in state.items() if key.startswith(SOURCE)}


def corrected(state: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Merge adapters, named as `adapters` returns them, into the weights of a state dict; the result is fp32."""
    mine = {theirs: mine for mine, theirs in PUBLISHED.items()}
    together = {name: tensor.float() for name, tensor in state.items()}
    for key, tensor in found.items():
        name = key.removeprefix(PREFIX)
        for suffix, own in mine.items():
            if name.endswith(suffix):
                name = f"{name.removesuffix(suffix)}{own}"
        together[name] = tensor.float()
    return merged(together)

"""Optimisers: Muon for the matrices inside a network, AdamW for everything else.

Muon (Jordan et al. 2024) orthogonalises each matrix's momentum, which for these small networks is worth about
twice the steps of AdamW. torch.optim.Muon iterates in bf16, four to ten times slower than fp32 on a CPU, and
takes no convolutions; hence these lines.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic whose iteration pushes singular values towards 1


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """Learning rates at their peak: linear warm-up, then flat, then linear to zero over the last part."""

    adam_lr: float
    muon_lr: float | None = None  # None: AdamW for all parameters
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    warmup: int = 100  # steps
    cooldown: float = 0.0  # fraction of the steps over which the rate falls to zero at the end
    max_grad_norm: float = 1.0

    def factor(self, step: int, num_steps: int) -> float:
        """What the learning rate is multiplied with at `step`, counted from 0."""
        up = (step + 1) / self.warmup if step < self.warmup else 1.0
        left = num_steps - step
        down = left / (self.cooldown * num_steps) if self.cooldown else 1.0
        return min(up, down, 1.0)


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """U V^T of a matrix's singular value decomposition, nearly: five Newton-Schulz iterations in fp32."""
    a, b, c = NEWTON_SCHULZ
    wide = matrix.float() if matrix.shape[0] <= matrix.shape[1] else matrix.float().T
    x = wide / (wide.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


class Muon(Optimizer):
    """Nesterov momentum, orthogonalised; a step has the same RMS as one of AdamW's at the same rate."""

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        assert closure is None, "Muon takes no closure"
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
                # 0.2 sqrt(max side): the RMS of AdamW's update (Liu et al. 2025, "Muon is scalable").
                scale = 0.2 * max(update.shape) ** 0.5
                p.add_(orthogonalise(update).view_as(p), alpha=-group["lr"] * scale)


def optimizers_for(net: nn.Module, config: OptimConfig) -> list[Optimizer]:
    """The optimisers of a network; `config.factor` scales their rates step by step."""
    matrices, others = [], []
    for name, p in net.named_parameters():
        if not p.requires_grad:
            continue
        hidden = p.ndim >= 2 and not name.endswith("modulation") and "embedding" not in name
        (matrices if hidden and "head" not in name and config.muon_lr is not None else others).append(p)
    adam = AdamW(others, lr=config.adam_lr, betas=config.betas, weight_decay=config.weight_decay)
    found: list[Optimizer] = [adam]
    if matrices and config.muon_lr is not None:
        found.append(Muon(matrices, lr=config.muon_lr))
    for optimizer in found:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return found

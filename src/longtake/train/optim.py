"""Optimisers: Muon for the matrices inside a network, AdamW for everything else.

Muon (Jordan et al. 2024) orthogonalises each matrix's momentum, which for these small networks is worth about
twice the steps of AdamW. torch.optim.Muon iterates in bf16, four to ten times slower than fp32 on many CPUs, takes
one matrix after the other, and no convolutions; hence these lines.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from longtake.core.bf16 import has_bf16_units
from longtake.train.ranks import like, whole_tensor

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


def orthogonalise(matrices: Float[Tensor, "m i j"], dtype: torch.dtype, steps: int = 5) -> Float[Tensor, "m i j"]:
    """U V^T of each matrix's singular value decomposition, nearly: Newton-Schulz iterations in `dtype`."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    wide = matrices.mT if tall else matrices
    x = (wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(dtype)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(Optimizer):
    """Nesterov momentum, orthogonalised; a step has the same RMS as one of AdamW's at the same rate."""

    def __init__(self, params: Iterable[Tensor], lr: float, dtype: torch.dtype, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})
        self.dtype = dtype  # of the iterations

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        assert closure is None, "Muon takes no closure"
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}  # matrices of one shape are orthogonalised together
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault(torch.Size((len(p), p.numel() // len(p))), []).append(p)
            for shape, params in alike.items():  # every rank all of it: a shard of a matrix has no singular values
                momenta = [whole_tensor(self._momentum(p, group["momentum"])) for p in params]
                updates = torch.stack([momentum.view(shape) for momentum in momenta])
                # 0.2 sqrt(max side): the RMS of AdamW's update (Liu et al. 2025, "Muon is scalable").
                rate = group["lr"] * 0.2 * max(shape) ** 0.5
                for p, update in zip(params, orthogonalise(updates, self.dtype), strict=True):
                    p.sub_(like(rate * update.view(p.shape), p))

    def _momentum(self, p: Tensor, beta: float) -> Tensor:
        assert p.grad is not None
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(p.grad, 1 - beta)
        return p.grad.lerp(state["momentum"], beta)


def optimizers_for(net: nn.Module, config: OptimConfig, *, bf16: bool = False) -> list[Optimizer]:
    """The optimisers of a network; `config.factor` scales their rates step by step.

    Args:
        net: whose parameters are trained.
        config: rates.
        bf16: orthogonalise in bf16 where that is fast; it is precise enough (Jordan et al. 2024).
    """
    matrices, others = [], []
    for name, p in net.named_parameters():
        if not p.requires_grad:
            continue
        hidden = p.ndim >= 2 and not name.endswith("modulation") and "embedding" not in name
        (matrices if hidden and "head" not in name and config.muon_lr is not None else others).append(p)
    found: list[Optimizer] = []
    if others:
        found.append(AdamW(others, lr=config.adam_lr, betas=config.betas, weight_decay=config.weight_decay))
    if matrices and config.muon_lr is not None:
        fast = bf16 and has_bf16_units(matrices[0].device)
        found.append(Muon(matrices, lr=config.muon_lr, dtype=torch.bfloat16 if fast else torch.float32))
    for optimizer in found:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return found

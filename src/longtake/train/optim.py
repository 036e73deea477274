"""Optimizers: Muon for the matrices inside a network, AdamW for all other parameters.

Muon (Jordan et al. 2024) orthogonalises each matrix's momentum; for these small networks, a step is worth about two
steps of AdamW. torch.optim.Muon is not used because it iterates in bf16 (four to ten times slower than fp32 on many
CPUs), processes one matrix at a time, and does not accept convolutions.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from longtake.train.ranks import gather, shard_like

# Parts of the names of parameters that do not map hidden features to hidden features: inputs, outputs, tables.
NOT_HIDDEN = ("embedding", "modulation", "head", "latent", "by_heart", "cells")
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of a quintic whose iteration drives singular values to 1


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """Peak learning rates; the schedule is linear warm-up, a constant part, and linear decay to zero."""

    adam_lr: float
    muon_lr: float | None = None  # None: AdamW for all parameters
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    warmup: int = 100  # number of warm-up steps
    cooldown: float = 0.0  # final fraction of the steps, over which the rate decays to zero
    max_grad_norm: float = 1.0

    def factor(self, step: int, num_steps: int) -> float:
        """Factor of the peak learning rate at `step`, counted from 0, of `num_steps`."""
        up = (step + 1) / self.warmup if step < self.warmup else 1.0
        left = num_steps - step
        down = left / (self.cooldown * num_steps) if self.cooldown else 1.0
        return min(up, down, 1.0)


def orthogonalise(matrices: Float[Tensor, "m i j"], steps: int = 5) -> Float[Tensor, "m i j"]:
    """Approximate U V^T of each matrix's singular value decomposition by Newton-Schulz iterations.

    Each iteration is x <- p(x x^T) x with p(g) = a + b g + c g^2. The polynomials are multiplied on the smaller side,
    g <- p g p, and applied to x once: for a side ratio of 1 : 4, this takes three fifths of the work.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    wide = matrices.mT if tall else matrices
    x = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    gram = x @ x.mT
    identity = a * torch.eye(gram.shape[1], dtype=x.dtype, device=x.device)
    product = None
    for _ in range(steps):
        p = identity + torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        product = p if product is None else p @ product
        gram = p @ gram @ p
    assert product is not None
    x = product @ x
    return x.mT if tall else x


class Muon(Optimizer):
    """Optimizer with orthogonalised Nesterov momentum; an update has the RMS of AdamW's at the same rate."""

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        assert closure is None, "Muon takes no closure"
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}  # matrices of equal shape are orthogonalised together
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault(torch.Size((len(p), p.numel() // len(p))), []).append(p)
            for shape, params in alike.items():  # every rank needs whole matrices: shards have other singular values
                momenta = [gather(self._momentum(p, group["momentum"])) for p in params]
                updates = torch.stack([momentum.view(shape) for momentum in momenta])
                # 0.2 sqrt(max side): the RMS of AdamW's update (Liu et al. 2025, "Muon is scalable").
                rate = group["lr"] * 0.2 * max(shape) ** 0.5
                for p, update in zip(params, orthogonalise(updates), strict=True):
                    p.sub_(shard_like(rate * update.view(p.shape), p))

    def _momentum(self, p: Tensor, beta: float) -> Tensor:
        assert p.grad is not None
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(p.grad, 1 - beta)
        return p.grad.lerp(state["momentum"], beta)


def is_hidden_matrix(name: str, p: Tensor) -> bool:
    """Whether a parameter is for Muon: a matrix between hidden features, and no depthwise convolution."""
    return p.ndim >= 2 and p.shape[1] > 1 and not any(word in name for word in NOT_HIDDEN)


def optimizers_for(net: nn.Module, config: OptimConfig) -> list[Optimizer]:
    """Build the optimizers of a network; the training loop scales their rates by `config.factor` at each step.

    Args:
        net: network whose parameters are trained.
        config: peak learning rates and other settings.
    """
    matrices, others = [], []
    for name, p in net.named_parameters():
        if p.requires_grad:
            muon = config.muon_lr is not None and is_hidden_matrix(name, p)
            (matrices if muon else others).append(p)
    found: list[Optimizer] = []
    if others:
        found.append(AdamW(others, lr=config.adam_lr, betas=config.betas, weight_decay=config.weight_decay))
    if matrices and config.muon_lr is not None:
        found.append(Muon(matrices, lr=config.muon_lr))
    for optimizer in found:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return found

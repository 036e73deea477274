"""A network that learns at all can learn one clip by heart: flow matching through the real loop and optimisers."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from longtake.core.configs import SamplingConfig
from longtake.flow.path import add_noise, velocity
from longtake.flow.schedule import logit_normal_sigma
from longtake.nets.dit import DiT
from longtake.sample.teacher import teacher_clip
from longtake.train.ema import EMA
from longtake.train.loop import Limits, LoopConfig, train
from longtake.train.optim import OptimConfig
from longtake.train.trainee import Trainee
from tests.tiny import DIT

STEPS, BATCH = 80, 8
OPTIM = OptimConfig(adam_lr=8e-3, muon_lr=8e-3, warmup=5, cooldown=0.5)
SMOOTH = 0.8  # how much of a latent frame its neighbour keeps


def clip() -> Tensor:
    """One latent clip, smooth in time, and unit variance."""
    rng = torch.Generator().manual_seed(3)
    frames = [torch.randn(1, DIT.in_dim, 4, 6, generator=rng)]
    for _ in range(2):
        fresh = torch.randn(frames[0].shape, generator=rng)
        frames.append(SMOOTH * frames[-1] + (1 - SMOOTH**2) ** 0.5 * fresh)
    return torch.stack(frames, 2)


def learned(folder: Path, x0: Tensor, text: Tensor) -> tuple[DiT, list[float]]:
    """A network trained on one clip, and its loss at each step."""
    torch.manual_seed(0)
    dit = DiT(replace(DIT, dim=64, num_heads=2, ffn_dim=128))
    losses: list[float] = []

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, Mapping[str, float]]:
        del step
        clips = x0.expand(BATCH, -1, -1, -1, -1)
        sigma = logit_normal_sigma((BATCH, 1), 1.0, rng).expand(-1, x0.shape[2])
        eps = torch.randn(clips.shape, generator=rng)
        v = dit(add_noise(clips, eps, sigma), sigma, text.expand(BATCH, -1, -1, -1))
        error = (v - velocity(clips, eps)).square().mean()
        losses.append(float(error.detach()))
        return error, {"loss": losses[-1]}

    ema = EMA(dit, 0.9)
    config = LoopConfig(steps=STEPS, optim=OPTIM)
    trainee = Trainee(name="teacher", net=dit, optim=OPTIM, loss=loss, ema=ema)
    assert train(folder, config, [trainee], limits=Limits(), progress=lambda *_: None)
    ema.copy_to(dit)
    return dit, losses


def test_one_clip_is_learned_by_heart(tmp_path: Path) -> None:
    x0 = clip()
    text = torch.randn(1, 1, DIT.text_len, DIT.text_dim, generator=torch.Generator().manual_seed(4))
    dit, losses = learned(tmp_path, x0, text)
    assert 1.5 < losses[0] < 2.6  # a fresh network says zero: the loss is the energy of eps - x0
    assert sum(losses[-10:]) / 10 < 0.4 * losses[0]
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(5))
    sampling = SamplingConfig(num_steps=12, shift=1.0)
    made = teacher_clip(dit, sampling, noise, text, text)
    assert (made - x0).square().mean() < 0.65 * (noise - x0).square().mean()

"""Three stages of training that processes can share, in as many as torchrun starts:

torchrun --nproc-per-node 2 -m tests.train.shared RUN [--stop]
"""

import math
import sys
from dataclasses import replace
from pathlib import Path

import torch

from longtake.nets.text import MiniLMEncoder
from longtake.train import dmd, ode_init, teacher
from longtake.train.dmd import DmdStage
from longtake.train.loop import Limits, LoopConfig
from longtake.train.ode_init import OdeInitStage
from longtake.train.optim import OptimConfig
from longtake.train.ranks import exit_without_teardown, ranks_of
from longtake.train.run import denormals_flushed
from longtake.train.teacher import Phase, TeacherStage
from tests.tiny import PRESET
from tests.train.tiny_run import context

OPTIM = OptimConfig(adam_lr=1e-3, muon_lr=1e-3, warmup=1)
SLOW = OptimConfig(adam_lr=1e-4, betas=(0.0, 0.999), warmup=1)


def loop(optim: OptimConfig) -> LoopConfig:
    return LoopConfig(steps=4, optim=optim, accumulate=2, ema_decay=0.9, checkpoint_activations=True)


TEACHING = TeacherStage(
    loop=loop(OPTIM),
    phases=(
        Phase(until=2, latent_frames=1, batch=3, shifts=(1.5, 4.0)),
        Phase(until=4, latent_frames=6, batch=2, shifts=(3.0,)),
    ),
)
INIT = OdeInitStage(loop=loop(OPTIM), batch=2)
DISTILLING = DmdStage(
    loop=loop(SLOW),
    critic=SLOW,
    batch=2,
    latent_frames=6,
    rollout_frames=9,
    shift=3.0,
    guidance_scale=2.0,
    critic_updates=2,
)


@denormals_flushed()
def train_on(out: Path, encoder: MiniLMEncoder, *, stop: bool = False) -> bool:
    """`out/teaching` has latents, `out/distilling` a teacher and pairs too. With `stop`, a step of one stage."""
    with ranks_of(torch.device("cpu")) as (ranks, _):
        limits = Limits(deadline=0.0 if stop else math.inf)
        first, second = (
            replace(context(out / name, encoder), ranks=ranks, limits=limits) for name in ("teaching", "distilling")
        )
        taught = teacher.run(TEACHING, first)
        return taught and ode_init.run(INIT, second) and dmd.run(DISTILLING, second)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    train_on(Path(sys.argv[1]), MiniLMEncoder(PRESET.dit.text_len), stop="--stop" in sys.argv)
    exit_without_teardown()

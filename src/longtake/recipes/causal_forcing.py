"""Causal Forcing on the default model's world: a teacher-forced teacher, consistency distillation, short DMD."""

from dataclasses import replace

from longtake.train.ar_teacher import ArTeacherStage
from longtake.train.consistency import ConsistencyStage
from longtake.train.loop import LoopConfig
from longtake.train.optim import OptimConfig
from longtake.train.run import Recipe, load_recipe


def recipe() -> Recipe:
    """The self-forcing recipe, initialised by consistency distillation and with half as many steps of DMD."""
    default = load_recipe("self-forcing")
    dmd = default.dmd
    assert dmd is not None
    return replace(
        default,
        ode_pairs=None,
        ode_init=None,
        ar_teacher=ArTeacherStage(
            loop=LoopConfig(
                steps=800,
                optim=OptimConfig(adam_lr=1e-3, muon_lr=1e-3, warmup=50, cooldown=0.3),
                ema_decay=0.99,
                log_every=20,
                bf16=True,
            ),
            batch=4,
            latent_frames=9,
            shift=5.0,
        ),
        consistency=ConsistencyStage(
            loop=LoopConfig(
                steps=400,
                optim=OptimConfig(adam_lr=2e-4, muon_lr=2e-4, warmup=20, cooldown=0.3),
                ema_decay=0.95,
                log_every=10,
                sample_every=200,
                bf16=True,
            ),
            batch=4,
            latent_frames=9,
            num_steps=32,
            guidance_scale=default.preset.teacher.guidance_scale,
        ),
        dmd=replace(dmd, loop=replace(dmd.loop, steps=dmd.loop.steps // 2), start="consistency"),
    )

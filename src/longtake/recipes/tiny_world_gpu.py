"""The 320x192 tiny-world on one data-centre GPU in a quarter of an hour: same world and networks, larger batches."""

from dataclasses import replace

from longtake.train.loop import LoopConfig
from longtake.train.optim import OptimConfig
from longtake.train.run import Recipe, load_recipe
from longtake.train.teacher import Phase


def loop(steps: int, lr: float, *, cooldown: float = 0.3, ema_decay: float = 0.99, sample_every: int = 0) -> LoopConfig:
    """Training loop in bf16 with a checkpoint every minute."""
    return LoopConfig(
        steps=steps,
        optim=OptimConfig(adam_lr=lr, muon_lr=lr, warmup=50, cooldown=cooldown),
        ema_decay=ema_decay,
        log_every=50,
        sample_every=sample_every,
        checkpoint_minutes=1.0,
        bf16=True,
    )


def recipe() -> Recipe:
    """Recipe for two commands, given a trained codec: latents and teacher (ten minutes), then the rest (five)."""
    default = load_recipe("tiny-world-320")
    assert default.ode_pairs is not None
    assert default.ode_init is not None
    assert default.dmd is not None
    assert default.source_pairs is not None
    assert default.source_adapter is not None
    assert default.decoder is not None
    slow = OptimConfig(adam_lr=5e-5, betas=(0.0, 0.999), warmup=10, max_grad_norm=10.0)
    return replace(
        default,
        latents=replace(default.latents, num_clips=8000, clips_per_shard=1000),
        teacher=replace(
            default.teacher,
            loop=loop(12000, 2e-3, ema_decay=0.9995, sample_every=4000),
            phases=(
                Phase(until=6000, latent_frames=1, batch=1024, shifts=(1.5, 4.0), kept=0.5),
                Phase(until=10000, latent_frames=12, batch=64, shifts=(3.0, 8.0, 8.0, 12.0), kept=0.5),
                Phase(until=12000, latent_frames=12, batch=48, shifts=(3.0, 8.0, 8.0, 12.0)),
            ),
        ),
        ode_pairs=replace(default.ode_pairs, num_pairs=1024, batch=256, bf16=True),
        ode_init=replace(default.ode_init, loop=loop(600, 2e-4), batch=32),
        dmd=replace(
            default.dmd,
            loop=replace(loop(500, 5e-5, cooldown=0.0, ema_decay=0.97, sample_every=250), optim=slow),
            critic=slow,
            batch=48,
        ),
        source_pairs=replace(default.source_pairs, num_clips=1500),
        source_adapter=replace(default.source_adapter, loop=loop(500, 1e-3, cooldown=0.5), batch=32),
        decoder=replace(
            default.decoder,
            loop=loop(1200, 3e-4, cooldown=0.5),
            discriminator=OptimConfig(adam_lr=3e-4, betas=(0.9, 0.99), warmup=50),
            batch=8,
            patches=32,
        ),
    )

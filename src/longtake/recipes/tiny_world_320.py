"""The next tiny-world, in training: 320x192, sharp places, 24 subjects. The shipped weights are of `tiny_world.py`."""

from longtake.core.configs import CoarseCodecConfig, DiTConfig, Preset, SamplingConfig, StreamConfig
from longtake.core.shapes import PictureSize
from longtake.train.codec_fit import CodecStage
from longtake.train.decoder_tuning import DecoderStage
from longtake.train.dmd import DmdStage
from longtake.train.latents import LatentStage
from longtake.train.loop import LoopConfig
from longtake.train.ode_init import OdeInitStage
from longtake.train.ode_pairs import OdePairStage
from longtake.train.optim import OptimConfig
from longtake.train.run import Recipe
from longtake.train.source_adapter import SourceAdapterStage
from longtake.train.source_pairs import SourcePairsStage
from longtake.train.teacher import Phase, TeacherStage
from longtake.worlds.scenes import WorldConfig

SHIFT = 5.0


def preset() -> Preset:
    """Preset with 9 million parameters, which runs in real time on two cores."""
    return Preset(
        name="tiny-world",
        description="cut-out subjects moving through photographed places, 320x192 at 16 frames/s",
        dit=DiTConfig(
            dim=256,
            num_layers=8,
            num_heads=4,
            ffn_dim=1024,
            text_dim=384,
            text_len=48,
            in_dim=48,
            grid=(6, 10),
            pooled_text=True,
        ),
        codec=CoarseCodecConfig(latent_channels=48, grid=(12, 20)),
        stream=StreamConfig(chunk=3, window=9),
        student=SamplingConfig(num_steps=4, shift=SHIFT),
        teacher=SamplingConfig(num_steps=50, shift=SHIFT, guidance_scale=3.0, guidance_below=0.8),
        size=PictureSize(height=192, width=320),
        fps=16.0,
        clip_latent_frames=12,
    )


def recipe() -> Recipe:
    """Recipe that takes about twenty hours on two otherwise idle cores."""
    return Recipe(
        preset=preset(),
        world=WorldConfig.tiny(),
        codec=CodecStage(
            loop=LoopConfig(
                steps=6500,
                optim=OptimConfig(adam_lr=1e-3, muon_lr=1e-3, warmup=50, cooldown=0.4),
                ema_decay=0.998,
                log_every=50,
            ),
            num_clips=1600,
            batch=4,
            crop=128,
            frames=9,
            latent_noise=0.1,
            subject_weight=4.0,
            subject_share=0.75,
        ),
        latents=LatentStage(num_clips=2000, clips_per_shard=100),
        openings=LatentStage(num_clips=6000, latent_frames=3, clips_per_shard=500, first_seed=3_000_000),
        teacher=TeacherStage(
            loop=LoopConfig(
                steps=12000,
                optim=OptimConfig(adam_lr=2e-3, muon_lr=2e-3, warmup=50, cooldown=0.3),
                ema_decay=0.998,
                log_every=20,
                sample_every=1000,
                compile=True,
            ),
            phases=(
                Phase(until=1500, latent_frames=1, batch=64, shifts=(1.5, 4.0, 8.0), kept=0.5, layers=4),
                Phase(until=8000, latent_frames=3, batch=24, shifts=(2.0, 5.0, 9.0), kept=0.5, layers=4),
                Phase(until=11000, latent_frames=12, batch=8, shifts=(3.0, 8.0, 8.0, 12.0), kept=0.5),
                Phase(until=12000, latent_frames=12, batch=6, shifts=(3.0, 8.0, 8.0, 12.0)),
            ),
            subject_weight=3.0,
        ),
        ode_pairs=OdePairStage(num_pairs=400, batch=8, num_steps=16, latent_frames=9),
        ode_init=OdeInitStage(
            loop=LoopConfig(
                steps=500,
                optim=OptimConfig(adam_lr=2e-4, muon_lr=2e-4, warmup=20, cooldown=0.3),
                ema_decay=0.98,
            ),
            batch=8,
        ),
        dmd=DmdStage(
            loop=LoopConfig(
                steps=400,
                optim=OptimConfig(adam_lr=1e-4, betas=(0.0, 0.999), warmup=1, max_grad_norm=10.0),
                ema_decay=0.9,
                log_every=5,
                sample_every=50,
            ),
            critic=OptimConfig(adam_lr=1e-4, betas=(0.0, 0.999), warmup=10, max_grad_norm=10.0),
            batch=4,
            latent_frames=9,
            rollout_frames=12,
            shift=SHIFT,
            guidance_scale=2.0,
        ),
        source_pairs=SourcePairsStage(num_clips=1000, latent_frames=12),
        source_adapter=SourceAdapterStage(
            loop=LoopConfig(
                steps=1500,
                optim=OptimConfig(adam_lr=1e-3, muon_lr=1e-3, warmup=20, cooldown=0.5),
                ema_decay=0.98,
                log_every=20,
                compile=True,
            ),
            batch=8,
            latent_frames=9,
            rank=32,
        ),
        decoder=DecoderStage(
            loop=LoopConfig(
                steps=4000,
                optim=OptimConfig(adam_lr=3e-4, muon_lr=3e-4, warmup=50, cooldown=0.5),
                ema_decay=0.995,
                log_every=20,
            ),
            discriminator=OptimConfig(adam_lr=3e-4, betas=(0.9, 0.99), warmup=50),
            batch=2,
            latent_frames=3,
        ),
    )

"""All stages in miniature, a few steps each, to test that they run; the result is not a usable model."""

from dataclasses import replace

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


def preset() -> Preset:
    """Preset with a network of 0.2 million parameters."""
    return Preset(
        name="smoke",
        description="a test of the chain, not a model",
        dit=DiTConfig(
            dim=48,
            num_layers=2,
            num_heads=2,
            ffn_dim=96,
            text_dim=384,
            text_len=16,
            in_dim=8,
            freq_dim=32,
            grid=(3, 5),
            pooled_text=True,
        ),
        codec=CoarseCodecConfig(
            latent_channels=8,
            width=32,
            decoder_blocks=1,
            middle_width=16,
            middle_blocks=1,
            leave_width=16,
            grid=(6, 10),
            local_basis=4,
        ),
        stream=StreamConfig(chunk=3, window=6),
        student=SamplingConfig(num_steps=2, shift=3.0),
        teacher=SamplingConfig(num_steps=4, shift=3.0, guidance_scale=2.0),
        size=PictureSize(height=96, width=160),
        fps=16.0,
        clip_latent_frames=6,
    )


def recipe() -> Recipe:
    """Recipe that takes under two minutes on two cores."""
    optim = OptimConfig(adam_lr=1e-3, muon_lr=1e-3, warmup=2)
    slow = OptimConfig(adam_lr=1e-4, betas=(0.0, 0.999), warmup=1, max_grad_norm=10.0)
    return Recipe(
        preset=preset(),
        world=replace(WorldConfig.tiny(), size=PictureSize(height=96, width=160)),
        codec=CodecStage(
            loop=LoopConfig(steps=20, optim=optim, ema_decay=0.9),
            num_clips=8,
            batch=2,
            crop=64,
            frames=9,
            subject_weight=3.0,
            subject_share=0.5,
        ),
        latents=LatentStage(num_clips=8, latent_frames=12, clips_per_shard=4),
        openings=LatentStage(num_clips=8, latent_frames=3, clips_per_shard=8, first_seed=3_000_000),
        teacher=TeacherStage(
            loop=LoopConfig(steps=20, optim=optim, ema_decay=0.9, sample_every=20),
            phases=(
                Phase(until=10, latent_frames=3, batch=4, shifts=(1.0,), layers=1),
                Phase(until=20, latent_frames=6, batch=2, shifts=(1.0,)),
            ),
            subject_weight=3.0,
        ),
        ode_pairs=OdePairStage(num_pairs=4, batch=2, num_steps=4, latent_frames=6),
        ode_init=OdeInitStage(loop=LoopConfig(steps=10, optim=optim, ema_decay=0.9), batch=2),
        dmd=DmdStage(
            loop=LoopConfig(steps=10, optim=slow, ema_decay=0.9, sample_every=10),
            critic=slow,
            batch=2,
            latent_frames=6,
            rollout_frames=9,
            shift=3.0,
            guidance_scale=2.0,
        ),
        source_pairs=SourcePairsStage(num_clips=4, latent_frames=6, clips_per_shard=2),
        source_adapter=SourceAdapterStage(
            loop=LoopConfig(steps=10, optim=optim, ema_decay=0.9), batch=2, latent_frames=6, rank=4
        ),
        decoder=DecoderStage(
            loop=LoopConfig(steps=10, optim=OptimConfig(adam_lr=1e-3, warmup=2), ema_decay=0.9),
            discriminator=OptimConfig(adam_lr=3e-4, warmup=2),
            batch=2,
            latent_frames=6,
            patch=32,
            patches=4,
            widths=(8, 16, 16),
            kept=8,
        ),
    )

"""The default model, tiny-world, trained on two CPU cores."""

from dataclasses import replace

from longtake.core.configs import CodecConfig, DiTConfig, Preset, SamplingConfig, StreamConfig
from longtake.core.shapes import PictureSize
from longtake.train.codec_fit import CodecStage
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
    """Preset with 5 million parameters, which runs in real time on two cores."""
    return Preset(
        name="tiny-world",
        description="cut-out subjects moving through photographed places, 160x96 at 16 frames/s",
        dit=DiTConfig(dim=192, num_layers=8, num_heads=3, ffn_dim=768, text_dim=384, text_len=48),
        codec=CodecConfig(
            pixel_patch=2,
            encoder_widths=(48, 64, 128),
            decoder_widths=(128, 48, 32),
            blocks=3,
            encoder_time=(4, 1),
            decoder_time=(2, 2),
            space=(2, 2),
        ),
        stream=StreamConfig(chunk=3, window=9),
        student=SamplingConfig(num_steps=4, shift=SHIFT),
        teacher=SamplingConfig(num_steps=50, shift=SHIFT, guidance_scale=3.0),
        size=PictureSize(height=96, width=160),
        fps=16.0,
        clip_latent_frames=21,
    )


def world() -> WorldConfig:
    """World with few subjects, places and events, so that all of them are learned."""
    return replace(
        WorldConfig.small(),
        rows=((34.0, 40.0), (40.0, 48.0), (48.0, 58.0)),
        latent_frames=21,
        camera_probability=0.0,
        weather_probability=0.1,
        time_probability=0.1,
        event_probability=0.45,
        second_subject_probability=0.0,
    )


def recipe() -> Recipe:
    """Recipe that takes four and a half hours on two otherwise idle cores."""
    return Recipe(
        preset=preset(),
        world=world(),
        codec=CodecStage(
            loop=LoopConfig(
                steps=4000,
                optim=OptimConfig(adam_lr=1e-3, muon_lr=1e-3, warmup=50, cooldown=0.6),
                ema_decay=0.995,
                log_every=50,
                bf16=True,
            ),
            num_clips=200,
            batch=4,
            crop=64,
            frames=9,
            normal_weight=0.02,
        ),
        latents=LatentStage(num_clips=1000, clips_per_shard=250),
        teacher=TeacherStage(
            loop=LoopConfig(
                steps=14600,
                optim=OptimConfig(adam_lr=2e-3, muon_lr=2e-3, warmup=50, cooldown=0.3),
                ema_decay=0.998,
                log_every=20,
                sample_every=1000,
                bf16=True,
                compile=True,
            ),
            phases=(
                Phase(until=8000, latent_frames=1, batch=48, shifts=(1.5, 4.0)),
                Phase(until=14200, latent_frames=9, batch=8, shifts=(3.0, 8.0, 8.0, 12.0)),
                Phase(until=14600, latent_frames=21, batch=3, shifts=(8.0, 3.0, 8.0)),
            ),
        ),
        ode_pairs=OdePairStage(num_pairs=160, batch=8, num_steps=16, latent_frames=9, bf16=True),
        ode_init=OdeInitStage(
            loop=LoopConfig(
                steps=250,
                optim=OptimConfig(adam_lr=2e-4, muon_lr=2e-4, warmup=20, cooldown=0.3),
                ema_decay=0.98,
                bf16=True,
            ),
            batch=8,
        ),
        dmd=DmdStage(
            loop=LoopConfig(
                steps=200,
                optim=OptimConfig(adam_lr=1e-4, betas=(0.0, 0.999), warmup=1, max_grad_norm=10.0),
                ema_decay=0.9,
                log_every=5,
                sample_every=50,
                bf16=True,
            ),
            critic=OptimConfig(adam_lr=1e-4, betas=(0.0, 0.999), warmup=10, max_grad_norm=10.0),
            batch=4,
            latent_frames=9,
            rollout_frames=12,
            shift=SHIFT,
            guidance_scale=2.0,
        ),
        source_pairs=SourcePairsStage(num_clips=500, latent_frames=15),
        source_adapter=SourceAdapterStage(
            loop=LoopConfig(
                steps=800,
                optim=OptimConfig(adam_lr=1e-3, muon_lr=1e-3, warmup=20, cooldown=0.5),
                ema_decay=0.98,
                log_every=20,
                bf16=True,
                compile=True,
            ),
            batch=8,
            latent_frames=9,
            rank=32,
        ),
    )

"""tiny-world on one data-centre GPU in half an hour: twice the places and subjects, twice the network."""

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
from longtake.train.painter import PainterStage
from longtake.train.painter_pairs import PainterPairsStage
from longtake.train.run import Recipe
from longtake.train.teacher import Phase, TeacherStage
from longtake.worlds.scenes import WorldConfig

SHIFT = 5.0
PLACES = (
    "pine_forest",
    "green_park",
    "sea_and_clouds",
    "city_street",
    "desert_dawn",
    "empty_apartment",
    "seaside_sunset",
    "misty_meadow",
    "brick_courtyard",
    "palace_square",
)
SUBJECTS = (
    "tiger",
    "elephant",
    "rabbit",
    "penguin",
    "horse",
    "cow",
    "dog",
    "giraffe",
    "car",
    "bus",
    "sailboat",
    "airplane",
    "rocket",
    "soccer_ball",
    "balloon",
    "bird",
    "ghost",
    "robot",
)


def preset() -> Preset:
    """9 million parameters: real time on two cores."""
    return Preset(
        name="tiny-world",
        description="cut-out subjects moving through photographed places, 160x96 at 16 frames/s",
        dit=DiTConfig(dim=256, num_layers=8, num_heads=4, ffn_dim=1024, text_dim=384, text_len=48),
        codec=CodecConfig(
            pixel_patch=2,
            encoder_widths=(48, 64, 128),
            decoder_widths=(128, 64, 32),
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
    """Twice the default's places and subjects, as large in the picture, and as little else: see docs/experiments.md."""
    return replace(
        WorldConfig.small(),
        rows=((34.0, 40.0), (40.0, 48.0), (48.0, 58.0)),
        places=PLACES,
        subjects=SUBJECTS,
        motions=(
            "walks",
            "runs",
            "hops",
            "drives",
            "sails",
            "flies",
            "floats",
            "rolls",
            "rises",
            "falls",
            "bounces",
            "spins",
            "stands still",
        ),
        latent_frames=21,
        camera_probability=0.0,
        weather_probability=0.1,
        time_probability=0.1,
        event_probability=0.45,
        second_subject_probability=0.0,
    )


def recipe() -> Recipe:
    """Three commands of ten minutes: codec and latents; teacher; the rest."""
    return Recipe(
        preset=preset(),
        world=world(),
        codec=CodecStage(
            loop=LoopConfig(
                steps=6000,
                optim=OptimConfig(adam_lr=1e-3, muon_lr=1e-3, warmup=50, cooldown=0.4),
                ema_decay=0.998,
                log_every=100,
                bf16=True,
            ),
            num_clips=1500,
            batch=16,
            crop=96,
            frames=17,
            normal_weight=0.02,
        ),
        latents=LatentStage(num_clips=12000, clips_per_shard=1000),
        teacher=TeacherStage(
            loop=LoopConfig(
                steps=14000,
                optim=OptimConfig(adam_lr=2e-3, muon_lr=2e-3, warmup=200, cooldown=0.3),
                ema_decay=0.9995,
                log_every=100,
                sample_every=2000,
                checkpoint_minutes=1.0,
                bf16=True,
            ),
            phases=(
                Phase(until=6000, latent_frames=1, batch=768, shifts=(1.5, 4.0)),
                Phase(until=13000, latent_frames=9, batch=64, shifts=(3.0, 8.0, 8.0, 12.0)),
                Phase(until=14000, latent_frames=21, batch=24, shifts=(8.0, 3.0, 8.0)),
            ),
        ),
        ode_pairs=OdePairStage(num_pairs=2048, batch=256, num_steps=16, latent_frames=9, bf16=True),
        ode_init=OdeInitStage(
            loop=LoopConfig(
                steps=1500,
                optim=OptimConfig(adam_lr=2e-4, muon_lr=2e-4, warmup=50, cooldown=0.3),
                ema_decay=0.99,
                log_every=100,
                bf16=True,
            ),
            batch=32,
        ),
        dmd=DmdStage(
            loop=LoopConfig(
                steps=1500,
                optim=OptimConfig(adam_lr=3e-5, betas=(0.0, 0.999), warmup=1, max_grad_norm=10.0),
                ema_decay=0.98,
                log_every=50,
                sample_every=500,
                checkpoint_minutes=1.0,
                bf16=True,
            ),
            critic=OptimConfig(adam_lr=3e-5, betas=(0.0, 0.999), warmup=10, max_grad_norm=10.0),
            batch=64,
            latent_frames=9,
            rollout_frames=12,
            shift=SHIFT,
            guidance_scale=2.0,
        ),
        painter_pairs=PainterPairsStage(num_clips=4000, latent_frames=15),
        painter=PainterStage(
            loop=LoopConfig(
                steps=1000,
                optim=OptimConfig(adam_lr=1e-3, muon_lr=1e-3, warmup=20, cooldown=0.5),
                ema_decay=0.99,
                log_every=50,
                checkpoint_minutes=1.0,
                bf16=True,
            ),
            batch=32,
            latent_frames=9,
            rank=32,
        ),
    )

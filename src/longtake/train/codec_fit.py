"""Stage 1: the light codec, fitted to rendered clips.

Loss: squared and absolute error of the pixels, and a pull of the latents towards zero mean and unit deviation per
channel, in the first latent frame (which holds one frame) and in the later ones (four) apart, so that diffusion
needs no statistics of its own. The decoder sees latents with a little noise
on them, as it will when a network has made them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from longtake.core.configs import CodecConfig, WanVAEConfig
from longtake.core.errors import TrainingError
from longtake.core.shapes import Latent, Video
from longtake.nets.codec import Codec, codec_for
from longtake.nets.light_codec import CodecState, LightCodec
from longtake.train.batches import pixels
from longtake.train.ema import EMA
from longtake.train.loop import LoopConfig
from longtake.train.rendering import rendered
from longtake.train.stage import Context, seeded, train_and_keep
from longtake.train.trainee import Trainee
from longtake.weights.checkpoint import load_into, read_weights, save_weights
from longtake.weights.presets import model_folder
from longtake.worlds.render import render
from longtake.worlds.scenes import WorldConfig, sample_scene

STAGE = "codec"


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecStage:
    """How the codec is trained. Crops are squares of `crop` pixels and `frames` frames."""

    loop: LoopConfig
    num_clips: int
    batch: int
    crop: int
    frames: int
    latent_noise: float = 0.05
    absolute_weight: float = 0.1
    normal_weight: float = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseCodec:
    """Instead of `CodecStage`: the codec of a model is taken as it is."""

    model: str


def run(stage: CodecStage | BaseCodec, world: WorldConfig, context: Context) -> bool:
    """Train the codec, or take it; False when a limit came first."""
    if isinstance(stage, BaseCodec):
        return _taken(stage, context)
    context.begin(STAGE, stage, world, context.preset.codec)
    if context.done(STAGE):
        return True
    config = context.preset.codec
    if not isinstance(config, CodecConfig):
        raise TrainingError("only the light codec is trained here; the recipe's preset has the Wan VAE")
    codec = seeded(stage.loop.seed, lambda: LightCodec(config)).to(context.device)
    clips = clips_in_memory(world, stage.num_clips, stage.loop.seed, context)
    ema = EMA(codec, stage.loop.ema_decay)
    encode, decode = stage.loop.program(codec.encode), stage.loop.program(codec.decode)

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, Mapping[str, float]]:
        del step
        video = crops(clips, stage, rng)
        latent, _ = encode(video, CodecState())
        latent = latent.float()
        noise = torch.randn(latent.shape, generator=rng).to(latent)
        decoded, _ = decode(latent + stage.latent_noise * noise, CodecState())
        difference = decoded - video
        square = difference.square().mean()
        normal = (away_from_normal(latent[:, :, :1]) + away_from_normal(latent[:, :, 1:])) / 2
        total = square + stage.absolute_weight * difference.abs().mean() + stage.normal_weight * normal
        return total, {"psnr": float(psnr(square.detach())), "normal": float(normal.detach())}

    return train_and_keep(
        context,
        STAGE,
        stage.loop,
        [Trainee(name="codec", net=codec, optim=stage.loop.optim, loss=loss, ema=ema)],
        facts=lambda: {"held_out_psnr_db": round(held_out_psnr(codec, world, context.device), 2)},
    )


def _taken(stage: BaseCodec, context: Context) -> bool:
    folder = context.begin(STAGE, stage, context.preset.codec)
    if not context.done(STAGE):
        save_weights(folder, "codec", read_weights(model_folder(stage.model), "codec"))
        context.finish(STAGE, taken_from=stage.model)
    return True


def away_from_normal(latent: Latent) -> Tensor:
    """How far the channels of latents are from zero mean and unit deviation: 0 when they are there."""
    over = (0, 2, 3, 4)
    return latent.mean(over).square().mean() + (latent.std(over) - 1).square().mean()


def load_codec(folder: Path, config: CodecConfig | WanVAEConfig, device: torch.device) -> Codec:
    """The codec that a run has trained, frozen."""
    codec = codec_for(config)
    load_into(codec, read_weights(folder, "codec"), str(folder / "codec.safetensors"))
    return codec.to(device).eval().requires_grad_(requires_grad=False)


def clips_in_memory(world: WorldConfig, num: int, seed: int, context: Context) -> Tensor:
    """Clips of the world as pictures, [clips, frames, height, width, rgb] uint8 on the run's device."""
    parts = []
    for _, pictures in rendered(world, range(seed, seed + num), context.workers):
        parts.append(pictures.to(context.device))
        context.progress("rendering", sum(map(len, parts)), num, {})
    return torch.cat(parts)


def crops(clips: Tensor, stage: CodecStage, rng: torch.Generator) -> Video:
    """Random crops in space and time, pixels in [-1, 1]."""
    num, length, height, width, _ = clips.shape
    out = []
    for _ in range(stage.batch):
        clip, start, top, left = (
            int(torch.randint(high, (1,), generator=rng))
            for high in (
                num,
                length - stage.frames + 1,
                height - stage.crop + 1,
                width - stage.crop + 1,
            )
        )
        piece = clips[clip, start : start + stage.frames]
        out.append(piece[:, top : top + stage.crop, left : left + stage.crop])
    return pixels(torch.stack(out))


def psnr(mean_square: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of an error on pixels in [-1, 1]."""
    return 10 * torch.log10(4 / mean_square)


@torch.no_grad()
def held_out_psnr(codec: LightCodec, world: WorldConfig, device: torch.device, num: int = 16) -> float:
    """Mean PSNR in dB over whole clips whose subject and place were never seen together."""
    scenes = [sample_scene(world, i, split="held_out") for i in range(num)]
    values = []
    for scene in scenes:
        video = pixels(render([scene], device=device).to(device))
        latent, _ = codec.encode(video, CodecState())
        decoded, _ = codec.decode(latent, CodecState())
        values.append(psnr((decoded.clamp(-1, 1) - video).square().mean()))
    return float(torch.stack(values).mean())

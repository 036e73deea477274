"""Stage 1: the codec, fitted to rendered clips.

    squared error + absolute error                   of pixels, those of subjects weighted more
    + error of the differences of successive frames  so that what stands still does not flicker
    + distance of the latents from a unit Gaussian   per channel, in the first latent frame (which holds one frame) and
                                                     in the later ones (four) apart, so that diffusion needs no
                                                     statistics of its own

The decoder sees latents with a little noise on them, as it will when a network has made them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from longtake.core.configs import WanVAEConfig
from longtake.core.errors import TrainingError
from longtake.core.files import atomic
from longtake.core.shapes import Latent, Video
from longtake.flow.distortion import excess_change, moving_psnr, psnr
from longtake.nets.coarse_codec import CoarseCodec, Origin
from longtake.nets.codec import Codec, CodecSettings, codec_for
from longtake.nets.light_codec import CodecState, LightCodec
from longtake.train.batches import pixels
from longtake.train.ema import EMA
from longtake.train.loop import LoopConfig
from longtake.train.rendering import drawn_with_cover, rendered
from longtake.train.stage import Context, seeded, train_and_keep
from longtake.train.trainee import Trainee
from longtake.weights.checkpoint import load_into, read_weights, save_weights
from longtake.weights.presets import model_folder
from longtake.worlds.render import render
from longtake.worlds.scenes import Scene, WorldConfig, sample_scene

STAGE = "codec"
CLIPS = "clips.npy"
CLIP_FRAMES = 21  # of a rendered clip, from anywhere in its scene
FROM_THE_START = 0.5  # share of the clips that begin with their scene


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecStage:
    """How the codec is trained. Crops are squares of `crop` pixels and `frames` frames, one square for a batch."""

    loop: LoopConfig
    num_clips: int
    batch: int
    crop: int
    frames: int
    latent_noise: float = 0.05  # standard deviation
    absolute_weight: float = 0.1
    change_weight: float = 0.1
    normal_weight: float = 0.02
    subject_weight: float = 1.0  # of the pixels of subjects; 1: as all others
    subject_share: float = 0.0  # of the batches, cut around a subject; the others are cut anywhere


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
    if isinstance(config, WanVAEConfig):
        raise TrainingError("the Wan VAE is not trained here; the recipe's preset needs a light or a coarse codec")
    codec = seeded(stage.loop.seed, lambda: trainable(config)).to(context.device)
    clips = rendered_clips(world, stage, context)
    ema = EMA(codec, stage.loop.ema_decay)
    code = stage.loop.maybe_compile(lambda video, noise, origin: coded(codec, video, noise, origin))

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, Mapping[str, float]]:
        del step
        crop = drawn_crops(clips, stage, config.stride.space, rng)
        video, cover = crop.video.to(context.device), crop.cover.to(context.device)
        shape = (len(video), config.latent_channels, config.stride.latent_frames(stage.frames))
        side = stage.crop // config.stride.space
        noise = stage.latent_noise * torch.randn((*shape, side, side), generator=rng).to(context.device)
        latent, decoded = code(video, noise, crop.origin)
        latent = latent.float()
        fidelity, mean_square = pixel_loss(decoded, video, cover, stage)
        normal = (away_from_normal(latent[:, :, :1]) + away_from_normal(latent[:, :, 1:])) / 2
        told = {"psnr": float(psnr(mean_square)), "normal": float(normal.detach())}
        return fidelity + stage.normal_weight * normal, told

    complete = train_and_keep(
        context,
        STAGE,
        stage.loop,
        [Trainee(name="codec", net=codec, optim=stage.loop.optim, loss=loss, ema=ema)],
        facts=lambda: held_out_figures(codec, world, context.device),
    )
    if complete:
        (context.folder(STAGE) / CLIPS).unlink()
    return complete


def _taken(stage: BaseCodec, context: Context) -> bool:
    folder = context.begin(STAGE, stage, context.preset.codec)
    if not context.done(STAGE):
        save_weights(folder, "codec", read_weights(model_folder(stage.model), "codec"))
        context.finish(STAGE, taken_from=stage.model)
    return True


def trainable(config: CodecSettings) -> LightCodec | CoarseCodec:
    """A codec to be trained, with its first weights."""
    codec = codec_for(config)
    assert isinstance(codec, LightCodec | CoarseCodec)
    return codec


def coded(codec: LightCodec | CoarseCodec, video: Video, noise: Tensor, origin: Origin) -> tuple[Latent, Video]:
    """The latents of crops, and what is decoded of them with noise on them."""
    where = {"origin": origin} if isinstance(codec, CoarseCodec) else {}
    latent, _ = codec.encode(video, CodecState(), **where)
    return latent, codec.decode(latent + noise, CodecState(), **where)[0]


@runtime_checkable
class PixelWeights(Protocol):
    """What the terms of `pixel_loss` count."""

    @property
    def absolute_weight(self) -> float: ...

    @property
    def change_weight(self) -> float: ...

    @property
    def subject_weight(self) -> float: ...


def pixel_loss(
    decoded: Video, video: Video, cover: Float[Tensor, "b 1 frames height width"], weights: PixelWeights
) -> tuple[Tensor, Tensor]:
    """How far decoded videos are from the true ones, and their mean squared error (without gradient).

    Args:
        decoded: pixels.
        video: the true ones.
        cover: of subjects, in [0, 1]; there, errors count `subject_weight`, elsewhere 1.
        weights: of the absolute error and of that of the differences of successive frames, beside the squared error.
    """
    difference = decoded - video
    weight = 1 + (weights.subject_weight - 1) * cover
    weight = weight / weight.mean()
    square, absolute = (weight * difference.square()).mean(), (weight * difference.abs()).mean()
    changes = difference.diff(dim=2).abs().mean()
    total = square + weights.absolute_weight * absolute + weights.change_weight * changes
    return total, difference.detach().square().mean()


def away_from_normal(latent: Latent) -> Tensor:
    """How far the channels of latents are from zero mean and unit deviation: 0 when they are there."""
    over = (0, 2, 3, 4)
    return latent.mean(over).square().mean() + (latent.std(over) - 1).square().mean()


def load_codec(folder: Path, config: CodecSettings, device: torch.device) -> Codec:
    """The codec that a run has trained, frozen."""
    codec = codec_for(config)
    load_into(codec, read_weights(folder, "codec"), str(folder / "codec.safetensors"))
    return codec.to(device).eval().requires_grad_(requires_grad=False)


def with_cover(scenes: Sequence[Scene]) -> UInt8[Tensor, "b frames height width rgba"]:
    """`CLIP_FRAMES` frames of each scene, from its start or from a moment that its seed chooses; alpha: the cover."""
    clips = []
    for scene in scenes:
        draw = Random(scene.seed)
        latest = max(scene.num_frames - CLIP_FRAMES, 0)
        start = 0 if draw.random() < FROM_THE_START else draw.randint(0, latest)
        clips.append(drawn_with_cover(scene, range(start, start + CLIP_FRAMES)))
    return torch.cat(clips)


def rendered_clips(world: WorldConfig, stage: CodecStage, context: Context) -> np.ndarray:
    """Clips of the world with the cover of their subjects, uint8 [clips, frames, height, width, rgba].

    They lie in a file of the stage's folder until it is done: more of them than memory has room for.
    """
    path = context.folder(STAGE) / CLIPS
    if not path.exists():
        shape = (stage.num_clips, CLIP_FRAMES, world.size.height, world.size.width, 4)
        seeds = range(stage.loop.seed, stage.loop.seed + stage.num_clips)
        done = 0
        with atomic(path) as part:
            clips = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
            for _, pictures in rendered(world, seeds, context.workers, with_cover):
                clips[done : done + len(pictures)] = pictures.numpy()
                done += len(pictures)
                context.progress("rendering", done, stage.num_clips, {})
            clips.flush()
    return np.load(path, mmap_mode="r")


@dataclass(frozen=True, kw_only=True)
class Crops:
    """Pieces of clips, cut at one place of the picture."""

    video: Video  # pixels in [-1, 1]
    cover: Float[Tensor, "b 1 frames height width"]  # of the subjects, in [0, 1]
    origin: Origin  # in cells of the latent grid


def drawn_crops(clips: np.ndarray, stage: CodecStage, cell: int, rng: torch.Generator) -> Crops:
    """A batch of crops, cut on the latent grid; with `stage.subject_share`, around a subject of the first clip.

    Args:
        clips: as `rendered_clips` gives them.
        stage: sizes and shares.
        cell: pixels of the side of a latent cell.
        rng: on the CPU; the draw depends on it alone.
    """
    num, length, height, width, _ = clips.shape

    def draw(high: int) -> int:
        return int(torch.randint(high, (1,), generator=rng))

    chosen = [draw(num) for _ in range(stage.batch)]
    starts = [draw(length - stage.frames + 1) for _ in chosen]
    rows, columns = (height - stage.crop) // cell, (width - stage.crop) // cell
    origin = draw(rows + 1), draw(columns + 1)
    around = bool(torch.rand(1, generator=rng) < stage.subject_share)
    shown = np.argwhere(clips[chosen[0], starts[0], ::cell, ::cell, 3] > 127) if around else np.empty((0, 2))
    if len(shown):
        row, column = (int(at) - stage.crop // cell // 2 for at in shown[draw(len(shown))])
        origin = min(max(row, 0), rows), min(max(column, 0), columns)
    top, left = origin[0] * cell, origin[1] * cell
    pieces = [
        clips[clip, start : start + stage.frames, top : top + stage.crop, left : left + stage.crop]
        for clip, start in zip(chosen, starts, strict=True)
    ]
    cut = torch.from_numpy(np.stack(pieces))
    return Crops(video=pixels(cut[..., :3]), cover=cut[:, None, ..., 3].float() / 255, origin=origin)


@torch.no_grad()
def held_out_figures(codec: Codec, world: WorldConfig, device: torch.device, num: int = 24) -> dict[str, float]:
    """Figures over clips whose subject and place were never seen together, and over clips in which nothing moves.

    PSNR in dB of whole pictures and of the pixels that move, means over clips; what successive frames of still clips
    differ by beyond the truth, in grey levels of 255.
    """
    whole, moving, still = [], [], []
    for seed in range(num):
        scene = sample_scene(world, seed, split="held_out")
        video, decoded = _through(codec, scene, device)
        whole.append(float(psnr((decoded - video).square().mean())))
        moving.append(moving_psnr(decoded, video))
        video, decoded = _through(codec, scene.at_rest(), device)
        still.append(float(excess_change(decoded, video)))
    return {
        "held_out_psnr_db": round(float(np.mean(whole)), 2),
        "held_out_moving_psnr_db": round(float(np.nanmean(moving)), 2),
        "still_excess_levels": round(float(np.mean(still)), 3),
    }


def _through(codec: Codec, scene: Scene, device: torch.device) -> tuple[Video, Video]:
    """A scene's clip, and what the codec makes of it."""
    video = pixels(render([scene], device=device).to(device))
    latent, _ = codec.encode(video, CodecState())
    return video, codec.decode(latent, CodecState())[0].clamp(-1, 1)

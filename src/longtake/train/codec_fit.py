"""Stage 1: the codec, trained on rendered clips.

The loss is the sum of

    squared error + absolute error                   of pixels, with more weight on those of subjects
    + error of the differences of successive frames  so that static parts do not flicker
    + distance of the latents from a unit Gaussian   per channel, separately for the first latent frame (which holds one
                                                     frame) and the later ones (four), so that diffusion needs no
                                                     normalisation statistics

The decoder reads latents with a little noise added, which makes it robust to the errors of generated latents.

The coarse codec's encoder is not trained by this loss: it is computed from the clips first (`principal.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
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
from longtake.core.shapes import Latent, Stride, Video
from longtake.flow.distortion import excess_change, moving_psnr, psnr
from longtake.nets.coarse_codec import CoarseCodec, Origin
from longtake.nets.codec import Codec, CodecSettings, codec_for
from longtake.nets.light_codec import CodecState, LightCodec
from longtake.train.batches import pixels
from longtake.train.ema import EMA
from longtake.train.loop import LoopConfig
from longtake.train.principal import fit_encoder
from longtake.train.rendering import drawn_with_cover, rendered
from longtake.train.stage import Context, seeded, train_and_keep
from longtake.train.state import checkpoints_in
from longtake.train.trainee import Trainee
from longtake.weights.checkpoint import load_into, read_weights, save_weights
from longtake.weights.presets import model_folder
from longtake.worlds.render import render
from longtake.worlds.sampling import sample_scene
from longtake.worlds.scenes import Scene, WorldConfig

STAGE = "codec"
CLIPS = "clips.npy"
CLIP_FRAMES = 21  # frames per rendered clip, from anywhere in its scene
FROM_THE_START = 0.5  # share of the clips that begin with their scene
FITTED = 200  # number of clips from which a coarse codec's encoder is computed


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecStage:
    """Configuration of the codec's training; a batch's crops are `frames` frames of one square of `crop` pixels."""

    loop: LoopConfig
    num_clips: int
    batch: int
    crop: int
    frames: int
    latent_noise: float = 0.05  # standard deviation of the noise on the latents
    absolute_weight: float = 0.1
    change_weight: float = 0.1
    normal_weight: float = 0.02
    subject_weight: float = 1.0  # weight of subjects' pixels; 1: the same as all others
    subject_share: float = 0.0  # share of the batches that are cut around a subject; the others are cut anywhere
    whitening: float = 0.5  # share of the spectrum that a coarse codec removes, in [0, 1] (`principal.fit_encoder`)


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseCodec:
    """Alternative to `CodecStage` that takes the codec of an existing model unchanged."""

    model: str


def run(stage: CodecStage | BaseCodec, world: WorldConfig, context: Context) -> bool:
    """Train the codec, or copy it from a model; return False when a limit stopped the training first.

    Raises:
        TrainingError: the preset's codec is the Wan VAE, which is not trained here.
    """
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
    if isinstance(codec, CoarseCodec):
        if not checkpoints_in(context.folder(STAGE)):  # a checkpoint holds the encoder
            fitted = fitting_clips(clips, config.stride)
            fit_encoder(codec, fitted, subject_weight=stage.subject_weight, whitening=stage.whitening)
        codec.encoder.requires_grad_(requires_grad=False)
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
        facts=lambda: held_out_metrics(codec, world, context.device),
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
    """Build a codec for training, with its initial weights."""
    codec = codec_for(config)
    assert isinstance(codec, LightCodec | CoarseCodec)
    return codec


def coded(codec: LightCodec | CoarseCodec, video: Video, noise: Tensor, origin: Origin) -> tuple[Latent, Video]:
    """Latents of crops, and the pixels decoded from these latents plus noise."""
    where = {"origin": origin} if isinstance(codec, CoarseCodec) else {}
    latent, _ = codec.encode(video, CodecState(), **where)
    return latent, codec.decode(latent + noise, CodecState(), **where)[0]


@runtime_checkable
class PixelWeights(Protocol):
    """Weights of the terms of `pixel_loss`."""

    @property
    def absolute_weight(self) -> float: ...

    @property
    def change_weight(self) -> float: ...

    @property
    def subject_weight(self) -> float: ...


def pixel_loss(
    decoded: Video, video: Video, cover: Float[Tensor, "b 1 frames height width"], weights: PixelWeights
) -> tuple[Tensor, Tensor]:
    """Loss of decoded videos, and their unweighted mean squared error (without gradient).

    Args:
        decoded: decoded pixels.
        video: true pixels.
        cover: share of each pixel that subjects cover; covered pixels have the weight `subject_weight`, others 1.
        weights: weights of the absolute error and of the error of frame differences, relative to the squared error.
    """
    difference = decoded - video
    weight = 1 + (weights.subject_weight - 1) * cover
    weight = weight / weight.mean()
    square, absolute = (weight * difference.square()).mean(), (weight * difference.abs()).mean()
    changes = difference.diff(dim=2).abs().mean()
    total = square + weights.absolute_weight * absolute + weights.change_weight * changes
    return total, difference.detach().square().mean()


def away_from_normal(latent: Latent) -> Tensor:
    """Mean over channels of mean^2 + (standard deviation - 1)^2; 0 for a unit Gaussian."""
    over = (0, 2, 3, 4)
    return latent.mean(over).square().mean() + (latent.std(over) - 1).square().mean()


def load_codec(folder: Path, config: CodecSettings, device: torch.device) -> Codec:
    """Load the codec that a run has trained, frozen, onto `device`."""
    codec = codec_for(config)
    load_into(codec, read_weights(folder, "codec"), str(folder / "codec.safetensors"))
    return codec.to(device).eval().requires_grad_(requires_grad=False)


def with_cover(scenes: Sequence[Scene]) -> UInt8[Tensor, "b frames height width rgba"]:
    """`CLIP_FRAMES` frames of each scene, from its start or a frame that its seed selects; alpha: subjects' cover."""
    clips = []
    for scene in scenes:
        draw = Random(scene.seed)
        latest = max(scene.num_frames - CLIP_FRAMES, 0)
        start = 0 if draw.random() < FROM_THE_START else draw.randint(0, latest)
        clips.append(drawn_with_cover(scene, range(start, start + CLIP_FRAMES)))
    return torch.cat(clips)


def rendered_clips(world: WorldConfig, stage: CodecStage, context: Context) -> np.ndarray:
    """Clips of the world, uint8 [clips, frames, height, width, rgba], with the cover of their subjects as alpha.

    The array is memory-mapped from a file in the stage's folder, as it may exceed memory; the file is removed when the
    stage is done.
    """
    path = context.folder(STAGE) / CLIPS
    if not path.exists():
        shape = (stage.num_clips, CLIP_FRAMES, world.size.height, world.size.width, 4)
        seeds = range(stage.loop.seed, stage.loop.seed + stage.num_clips)
        done = 0
        with atomic(path) as part:
            clips = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
            for _, pictures in rendered(world, seeds, context.tasks, with_cover):
                clips[done : done + len(pictures)] = pictures.numpy()
                done += len(pictures)
                context.progress("rendering", done, stage.num_clips, {})
            clips.flush()
    return np.load(path, mmap_mode="r")


def fitting_clips(clips: np.ndarray, stride: Stride) -> Iterator[tuple[Video, Tensor]]:
    """About `FITTED` clips as whole latent frames: pixels in [-1, 1], and the cover of their subjects."""
    frames = clips.shape[1] // stride.time * stride.time
    for clip in clips[:: max(1, len(clips) // FITTED), :frames]:
        piece = torch.from_numpy(np.array(clip))[None]
        yield pixels(piece[..., :3]), piece[:, None, ..., 3].float() / 255


@dataclass(frozen=True, kw_only=True)
class Crops:
    """Crops of several clips, all at the same place of the picture."""

    video: Video  # pixels in [-1, 1]
    cover: Float[Tensor, "b 1 frames height width"]  # cover of the subjects, in [0, 1]
    origin: Origin  # row and column of the first cell on the latent grid


def drawn_crops(clips: np.ndarray, stage: CodecStage, cell: int, rng: torch.Generator) -> Crops:
    """Sample crops on the latent grid; with probability `stage.subject_share`, around a subject of the first clip.

    Args:
        clips: clips as returned by `rendered_clips`.
        stage: batch size, crop size and subject share.
        cell: side of a latent cell in pixels.
        rng: CPU generator; the crops depend on it alone.
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
def held_out_metrics(codec: Codec, world: WorldConfig, device: torch.device, num: int = 24) -> dict[str, float]:
    """Metrics on held-out clips, whose combinations of subject and place are not in training, and on still clips.

    PSNR in dB of whole pictures and of moving pixels, averaged over clips; and the excess of the change between
    successive frames of still clips over the truth, in grey levels of 255.
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
    """A scene's clip and its reconstruction by the codec, pixels in [-1, 1]."""
    video = pixels(render([scene], device=device).to(device))
    latent, _ = codec.encode(video, CodecState())
    return video, codec.decode(latent, CodecState())[0].clamp(-1, 1)

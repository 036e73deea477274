"""Stage 2: rendered clips of the world, encoded as latents with a caption per chunk and stored in shards.

latents  [clips, channels, latent frames, rows, columns]  fp16
covers   [clips, latent frames, rows, columns]            uint8: share of a cell that subjects cover, 0..255
starts   [clips]                                          int32: latent frame of its scene that a clip begins with
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import UInt8
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from longtake.core.files import atomic
from longtake.core.shapes import Stride
from longtake.core.tasks import LocalTasks
from longtake.nets.codec import Codec
from longtake.nets.light_codec import CodecState
from longtake.train.batches import pixels
from longtake.train.codec_fit import STAGE as CODEC
from longtake.train.codec_fit import load_codec
from longtake.train.rendering import Draw, drawn_with_cover, rendered
from longtake.train.stage import Context
from longtake.worlds.captions import captions_for
from longtake.worlds.scenes import Scene, WorldConfig

STAGE = "latents"
OPENINGS_STAGE = (
    "openings"  # many short clips: the starts of takes are the hardest to learn, and the cheapest to render
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentStage:
    """Number and length of the clips; `first_seed` keeps their scenes apart from those of the codec's training."""

    num_clips: int
    latent_frames: int | None = None  # length of a clip, from its scene's start; None: whole scenes
    clips_per_shard: int = 250
    first_seed: int = 1_000_000


def run(stage: LatentStage, world: WorldConfig, context: Context, name: str = STAGE) -> bool:
    """Render and encode the clips of the stage `name`, except those in existing shards; False: a limit stopped it."""
    context.begin(name, stage, world, after=(CODEC,))
    length = stage.latent_frames or world.latent_frames
    looks = {"latents": partial(openings, latent_frames=length)}
    return context.done(name) or encode_world(name, stage, world, looks, context)


def openings(scenes: Sequence[Scene], latent_frames: int) -> UInt8[Tensor, "b frames height width rgba"]:
    """The first `latent_frames` latent frames of scenes, as pictures; alpha is the cover of their subjects."""
    return torch.cat([drawn_with_cover(scene, range(Stride().frames(latent_frames))) for scene in scenes])


def encode_world(
    name: str, stage: LatentStage, world: WorldConfig, looks: Mapping[str, Draw], context: Context
) -> bool:
    """Encode a world's clips for a stage that has begun; return False when a limit stopped it first.

    Args:
        name: name of the stage.
        stage: number, length and seeds of the clips.
        world: world that the clips show.
        looks: name of a stored tensor -> function that renders its clips. Pictures with alpha (the cover of their
            subjects) also give the tensor `covers`.
        context: the training run.
    """
    folder = context.folder(name)
    task = ShardTask(
        world=world,
        looks=looks,
        codec=load_codec(context.folder(CODEC), context.preset.codec, torch.device("cpu")),
        latent_frames=stage.latent_frames or world.latent_frames,
        device=context.tasks.device,
    )
    starts = [
        start for start in range(0, stage.num_clips, stage.clips_per_shard) if not shard_path(folder, start).exists()
    ]
    ends = [min(start + stage.clips_per_shard, stage.num_clips) for start in starts]
    seeds = [range(stage.first_seed + start, stage.first_seed + end) for start, end in zip(starts, ends, strict=True)]
    context.progress(name, starts[0] if starts else stage.num_clips, stage.num_clips, {})
    # On a CPU, as many shards as there are cores are made at a time; a GPU has one, rendered by all cores.
    with closing(context.tasks.map(make_shard, task, seeds, whole=task.device.type != "cpu")) as shards:
        for start, end, (tensors, captions) in zip(starts, ends, shards, strict=True):
            with atomic(shard_path(folder, start)) as part:
                save_file(tensors, part, {"captions": json.dumps(captions)})
            context.progress(name, end, stage.num_clips, {})
            if context.limits.reached() and end < stage.num_clips:
                return False
    context.finish(name, clips=stage.num_clips)
    return True


def shard_path(folder: Path, start: int) -> Path:
    """Path of the shard whose first clip or pair has the number `start`."""
    return folder / f"{start:07d}.safetensors"


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """What all shards of a stage have in common; see `encode_world`."""

    world: WorldConfig
    looks: Mapping[str, Draw]
    codec: Codec
    latent_frames: int
    device: torch.device


def make_shard(task: ShardTask, seeds: Sequence[int]) -> tuple[dict[str, Tensor], list[list[str]]]:
    """Render and encode the clips of `seeds`: the shard's tensors, and a caption for each chunk of each clip."""
    codec = task.codec.to(task.device)
    rendering = LocalTasks(task.device, 1 if task.device.type == "cpu" else os.cpu_count() or 1)
    parts: dict[str, list[Tensor]] = {}
    captions: list[list[str]] = []
    for look, draw in task.looks.items():
        captions = []
        for scenes, pictures in rendered(task.world, seeds, rendering, draw):
            parts.setdefault(look, []).append(_encoded(codec, pictures[..., :3], task.device))
            if pictures.shape[-1] > 3:
                parts.setdefault("covers", []).append(covers(pictures[..., 3], codec.config.stride))
            for scene in scenes:
                captions.append(captions_for(scene, scene.seed)[: task.latent_frames // task.world.chunk])
    starts = torch.zeros(len(seeds), dtype=torch.int32)
    return {"starts": starts, **{look: torch.cat(each) for look, each in parts.items()}}, captions


def covers(cover: UInt8[Tensor, "b frames height width"], stride: Stride) -> UInt8[Tensor, "b f h w"]:
    """Share of each latent cell that is covered, 0..255, averaged over the frames of its latent frame."""
    per_frame = functional.avg_pool2d(cover.float(), stride.space)
    first, later = per_frame[:, :1], per_frame[:, 1:].unflatten(1, (-1, stride.time)).mean(2)
    return torch.cat((first, later), 1).round().to(torch.uint8)


@torch.no_grad()
def _encoded(codec: Codec, pictures: Tensor, device: torch.device) -> Tensor:
    """Latents of clips in fp16 on the CPU, encoded one by one: a batch would not fit into a processor's cache."""
    clips = [codec.encode(pixels(clip[None].to(device)), CodecState())[0].half().cpu() for clip in pictures]
    return torch.cat(clips)

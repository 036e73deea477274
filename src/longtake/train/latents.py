"""Stage 2: clips of the world as latents with a caption for each chunk, in shards."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from safetensors.torch import save_file

from longtake.nets.light_codec import CodecState
from longtake.train.batches import pixels
from longtake.train.codec_fit import STAGE as CODEC
from longtake.train.codec_fit import load_codec
from longtake.train.rendering import Draw, rendered
from longtake.train.stage import Context
from longtake.worlds.captions import captions_for
from longtake.worlds.render import render
from longtake.worlds.scenes import WorldConfig

STAGE = "latents"


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentStage:
    """How many clips are made. `first_seed` keeps them apart from the codec's."""

    num_clips: int
    clips_per_shard: int = 250
    first_seed: int = 1_000_000


def run(stage: LatentStage, world: WorldConfig, context: Context) -> bool:
    """Render and encode; shards that exist are kept. False when a limit came first."""
    context.begin(STAGE, stage, world, after=(CODEC,))
    return context.done(STAGE) or encode_world(STAGE, stage, world, {"latents": render}, context)


def encode_world(
    name: str, stage: LatentStage, world: WorldConfig, looks: Mapping[str, Draw], context: Context
) -> bool:
    """Latents of a world's clips, for a stage that has begun.

    Args:
        name: of the stage.
        stage: how many clips.
        world: what they show.
        looks: tensor -> how the clips that it holds are drawn; captions are those of the scenes.
        context: of the run.
    """
    folder = context.folder(name)
    codec = load_codec(context.folder(CODEC), context.preset.codec, context.device)
    for start in range(0, stage.num_clips, stage.clips_per_shard):
        stop = min(start + stage.clips_per_shard, stage.num_clips)
        path = folder / f"{start:07d}.safetensors"
        if path.exists():
            continue
        tensors, captions = {}, []
        seeds = range(stage.first_seed + start, stage.first_seed + stop)
        for look, draw in looks.items():
            captions, latents = [], []
            for scenes, pictures in rendered(world, seeds, context.workers, draw):
                with torch.no_grad():
                    latents.append(codec.encode(pixels(pictures.to(context.device)), CodecState())[0].half().cpu())
                captions.extend(captions_for(scene, scene.seed) for scene in scenes)
                context.progress(name, start + len(captions), stage.num_clips, {})
            tensors[look] = torch.cat(latents)
        part = path.with_suffix(".part")
        save_file(tensors, part, {"captions": json.dumps(captions)})
        part.replace(path)
        if context.limits.reached() and stop < stage.num_clips:
            return False
    context.finish(name, clips=stage.num_clips)
    return True

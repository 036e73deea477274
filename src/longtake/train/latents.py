"""Stage 2: clips of the world as latents with a caption for each chunk, in shards."""

import json
from dataclasses import dataclass

import torch
from safetensors.torch import save_file

from longtake.nets.light_codec import CodecState
from longtake.train.batches import pixels
from longtake.train.codec_fit import STAGE as CODEC
from longtake.train.codec_fit import load_codec
from longtake.train.rendering import rendered
from longtake.train.stage import Context
from longtake.worlds.captions import captions_for
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
    folder = context.begin(STAGE, stage, world, after=(CODEC,))
    if context.done(STAGE):
        return True
    codec = load_codec(context.folder(CODEC), context.preset.codec, context.device)
    for start in range(0, stage.num_clips, stage.clips_per_shard):
        stop = min(start + stage.clips_per_shard, stage.num_clips)
        path = folder / f"{start:07d}.safetensors"
        if path.exists():
            continue
        latents, captions = [], []
        seeds = range(stage.first_seed + start, stage.first_seed + stop)
        for scenes, pictures in rendered(world, seeds, context.workers):
            with torch.no_grad():
                latents.append(codec.encode(pixels(pictures.to(context.device)), CodecState())[0].half().cpu())
            captions.extend(captions_for(scene, scene.seed) for scene in scenes)
            context.progress(STAGE, start + len(captions), stage.num_clips, {})
        part = path.with_suffix(".part")
        save_file({"latents": torch.cat(latents)}, part, {"captions": json.dumps(captions)})
        part.replace(path)
        if context.limits.reached() and stop < stage.num_clips:
            return False
    context.finish(STAGE, clips=stage.num_clips)
    return True

"""Stage 7: clips of the world in two looks, the source adapter's source and its target."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import UInt8
from torch import Tensor

from longtake.core.noise import rng_for
from longtake.train.codec_fit import STAGE as CODEC
from longtake.train.latents import LatentStage, encode_world
from longtake.train.stage import Context
from longtake.worlds.render import render
from longtake.worlds.scenes import MOTION_EVENTS, Scene, WorldConfig

STAGE = "source_pairs"

PLAIN = 0.67  # share of sources in the plain look; the others are in the full look, at a random time and weather
AIRS = (("day", "clear"), ("night", "clear"), ("sunset", "clear"), ("day", "snow"), ("day", "fog"))  # time, weather
LEAST_GAIN, MOST_GAIN = 0.6, 1.3  # random gain of a source's colours, so that colours are learned from the prompt


@dataclass(frozen=True, kw_only=True, slots=True)
class SourcePairsStage:
    """Number and length of the pairs."""

    num_clips: int
    latent_frames: int
    clips_per_shard: int = 100
    first_seed: int = 2_000_000


def run(stage: SourcePairsStage, world: WorldConfig, context: Context) -> bool:
    """Render and encode both looks, except pairs in existing shards; return False when a limit stopped it first."""
    context.begin(STAGE, stage, world, after=(CODEC,))
    if context.done(STAGE):
        return True
    clips = LatentStage(num_clips=stage.num_clips, clips_per_shard=stage.clips_per_shard, first_seed=stage.first_seed)
    world = replace(world, latent_frames=stage.latent_frames)
    return encode_world(STAGE, clips, world, {"latents": render, "sources": sources}, context)


def sources(scenes: Sequence[Scene]) -> UInt8[Tensor, "b f h w c"]:
    """Source clips for the source adapter, one per scene; a pure function of the scenes."""
    return torch.cat([_source(scene) for scene in scenes])


def _source(scene: Scene) -> UInt8[Tensor, "1 f h w c"]:
    rng = rng_for(scene.seed, ("source",))
    if float(torch.rand((), generator=rng)) < PLAIN:
        pictures = render([scene], "plain")
    else:
        time, weather = AIRS[int(torch.randint(len(AIRS), (), generator=rng))]
        moves = tuple(event for event in scene.events if event.kind in MOTION_EVENTS)
        pictures = render([replace(scene, time=time, weather=weather, events=moves)])
    gains = LEAST_GAIN + (MOST_GAIN - LEAST_GAIN) * torch.rand(3, generator=rng)
    return (pictures.float() * gains).clamp(0, 255).to(torch.uint8)

"""Sample sheets: clips that a network generates during its training, always for the same six prompts."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from longtake.core.cue import Settings
from longtake.core.noise import noise_for
from longtake.core.shapes import Pictures
from longtake.media.frames import to_pictures
from longtake.media.sheets import Row, contact_sheet
from longtake.nets.codec import Codec
from longtake.nets.dit import DiT
from longtake.nets.light_codec import CodecState
from longtake.sample.plans import ChunkPlan
from longtake.sample.sampler import Sampler, rollout
from longtake.sample.teacher import teacher_clip
from longtake.train.codec_fit import STAGE as CODEC
from longtake.train.codec_fit import load_codec
from longtake.train.ema import EMA
from longtake.train.ranks import reshard
from longtake.train.stage import Context

PROMPTS = (
    "a tiger walks along a mountain road",
    "an elephant walks right across a city square",
    "a red car drives to the left on a bridge",
    "a sailboat sails on the sea",
    "a penguin hops in a park at night",
    "a balloon rises over a terrace",
)
SHEET_STEPS = 20  # steps of the teacher's sampler, enough to judge by eye


def teacher_sheet(context: Context, dit: DiT, ema: EMA, path: Path) -> None:
    """Write clips by the averaged teacher, one per prompt, at the length it was trained on."""
    preset = context.preset
    shape = (preset.dit.in_dim, preset.clip_latent_frames, *preset.latent_grid(preset.size))
    noise = torch.stack([noise_for(i, ("sheet",), shape) for i in range(len(PROMPTS))])
    text = torch.stack(list(context.encoder.each(PROMPTS)))[:, None].to(context.device)
    uncond = context.encoder("").to(context.device).expand_as(text)
    sampling = replace(preset.teacher, num_steps=SHEET_STEPS)
    with averaged(dit, ema):
        latents = teacher_clip(dit, sampling, noise.to(context.device), text, uncond)
    codec = _codec(context)
    with torch.no_grad():
        clips = [to_pictures(codec.decode(latent[None], CodecState())[0]) for latent in latents]
    _write(context, clips, path)


def student_sheet(context: Context, dit: DiT, ema: EMA, path: Path) -> None:
    """Write takes by the averaged student, one per prompt, generated as in streaming."""
    preset = context.preset
    num_chunks = preset.clip_latent_frames // preset.stream.chunk
    clips = []
    with averaged(dit, ema):
        sampler = Sampler(preset, dit, _codec(context), context.encoder)
        for seed, prompt in enumerate(PROMPTS):
            plans = (
                ChunkPlan(idx=i, wording=((prompt, 1.0),), settings=Settings(seed=seed)) for i in range(num_chunks)
            )
            clips.append(torch.cat([result.pictures for result in rollout(sampler, plans)]))
    _write(context, clips, path)


class averaged:  # noqa: N801  (a context manager, used as a verb)
    """Context in which a network has its averaged weights; the others are restored at the end."""

    def __init__(self, dit: DiT, ema: EMA) -> None:
        self.dit, self.ema = dit, ema

    def __enter__(self) -> None:
        self.live = {n: p.detach().clone() for n, p in self.dit.named_parameters()}
        self.ema.copy_to(self.dit)

    def __exit__(self, *exc: object) -> None:
        reshard(self.dit)
        with torch.no_grad():
            for name, p in self.dit.named_parameters():
                p.copy_(self.live[name])


def _codec(context: Context) -> Codec:
    return load_codec(context.folder(CODEC), context.preset.codec, context.device)


def _write(context: Context, clips: Sequence[Pictures], path: Path) -> None:
    if context.ranks.is_first:
        rows = [Row(pictures=clip, caption=prompt) for clip, prompt in zip(clips, PROMPTS, strict=True)]
        contact_sheet(rows, columns=7).save(path)

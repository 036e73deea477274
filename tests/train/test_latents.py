"""Latent clips begin where their captions do, and say where subjects are."""

from dataclasses import replace

import torch

from longtake.core.shapes import Stride
from longtake.train.latents import covers, openings
from longtake.worlds.render import render, silhouettes
from longtake.worlds.sampling import sample_scene
from longtake.worlds.scenes import WorldConfig

WORLD = replace(WorldConfig.small(), latent_frames=12)


def test_clips_are_the_starts_of_their_scenes() -> None:
    scenes = [sample_scene(WORLD, seed) for seed in (3, 4)]
    clips = openings(scenes, 6)
    for clip, scene in zip(clips, scenes, strict=True):
        assert torch.equal(clip[..., :3], render([scene])[0][: Stride().frames(6)])


def test_covers_are_means_over_cells_and_over_the_frames_of_a_latent_frame() -> None:
    cover = torch.zeros(1, 5, 32, 48, dtype=torch.uint8)
    cover[0, 0, :16, :16] = 255  # the first frame: all of the first cell
    cover[0, 1:3, 16:, 32:40] = 255  # half of the last cell in two of four frames
    found = covers(cover, Stride(space=16))
    assert found.shape == (1, 2, 2, 3)
    assert found[0, 0].tolist() == [[255, 0, 0], [0, 0, 0]]
    assert found[0, 1].tolist() == [[0, 0, 0], [0, 0, 64]]


def test_the_cover_of_a_clip_is_that_of_its_frames() -> None:
    scene = sample_scene(WORLD, 0)
    assert torch.equal(openings([scene], 6)[..., 3], silhouettes([scene], frames=range(21)))

"""Latent clips begin where their captions do, and say where subjects are."""

from dataclasses import replace

import torch

from longtake.core.shapes import Stride
from longtake.train.latents import covers, first_chunk, windows
from longtake.worlds.render import render, silhouettes
from longtake.worlds.sampling import sample_scene
from longtake.worlds.scenes import WorldConfig

WORLD = replace(WorldConfig.small(), latent_frames=12)


def test_a_clip_from_a_later_chunk_shows_that_chunk_of_its_scene() -> None:
    """Its chunks after the first are those of the scene, frame by frame, so the scene's captions are true of them."""
    scene = next(s for s in (sample_scene(WORLD, seed) for seed in range(99)) if first_chunk(s, 6) > 0)
    first = first_chunk(scene, 6)
    clip = windows([scene], 6)[0, ..., :3]
    assert len(clip) == Stride().frames(6)
    whole = render([scene])[0]
    assert torch.equal(clip[9:], whole[scene.chunk_frames(first + 1).start :][:12])
    assert torch.equal(clip[:9], whole[scene.chunk_frames(first).start + 3 :][:9])


def test_half_of_the_clips_begin_with_their_scene_and_none_goes_beyond_it() -> None:
    firsts = [first_chunk(sample_scene(WORLD, seed), 6) for seed in range(300)]
    assert 0.4 < firsts.count(0) / 300 < 0.6
    assert set(firsts) == {0, 1, 2}
    assert {first_chunk(sample_scene(WORLD, seed), 12) for seed in range(50)} == {0}


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
    start = 12 * first_chunk(scene, 6)
    assert torch.equal(windows([scene], 6)[..., 3], silhouettes([scene], frames=range(start, start + 21)))

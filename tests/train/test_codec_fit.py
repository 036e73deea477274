"""What the codec is trained on: crops on its grid, around subjects as often as asked, with their cover."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from longtake.core.noise import rng_for
from longtake.flow.distortion import excess_change, moving_psnr, psnr
from longtake.train.codec_fit import CodecStage, drawn_crops, with_cover
from longtake.train.loop import LoopConfig
from longtake.train.optim import OptimConfig
from longtake.worlds.render import render, silhouettes
from longtake.worlds.sampling import sample_scene
from longtake.worlds.scenes import WorldConfig

LOOP = LoopConfig(steps=1, optim=OptimConfig(adam_lr=1e-3))
STAGE = CodecStage(loop=LOOP, num_clips=3, batch=2, crop=32, frames=5, subject_share=1.0)


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    """Every pixel names its place: red the row, green the column, blue the frame. One subject, in one cell."""
    found = np.zeros((3, 9, 64, 96, 4), np.uint8)
    found[..., 0] = np.arange(64)[:, None]
    found[..., 1] = np.arange(96)
    found[..., 2] = np.arange(9)[:, None, None]
    found[:, :, 40:56, 64:80, 3] = 255
    return found


def test_crops_are_cut_on_the_grid_where_their_origin_says(clips: np.ndarray) -> None:
    for step in range(20):
        crop = drawn_crops(clips, replace(STAGE, subject_share=0.0), 16, rng_for(0, ("crop", step)))
        shown = ((crop.video + 1) * 127.5).round()
        assert shown[0, 0, 0, 0, 0] == 16 * crop.origin[0]
        assert shown[0, 1, 0, 0, 0] == 16 * crop.origin[1]
        assert shown.shape == (2, 3, 5, 32, 32)
        assert torch.equal(shown[0, 2, :, 0, 0] - shown[0, 2, 0, 0, 0], torch.arange(5.0))


def test_crops_around_a_subject_show_it_with_its_cover(clips: np.ndarray) -> None:
    anywhere = [drawn_crops(clips, replace(STAGE, subject_share=0.0), 16, rng_for(0, ("c", i))) for i in range(40)]
    around = [drawn_crops(clips, STAGE, 16, rng_for(0, ("c", i))) for i in range(40)]
    assert all(crop.cover.amax() == 1 for crop in around)
    assert any(crop.cover.amax() == 0 for crop in anywhere)
    crop = around[0]
    rows = ((crop.video[0, 0, 0] + 1) * 127.5).round()
    columns = ((crop.video[0, 1, 0] + 1) * 127.5).round()
    inside = (rows >= 40) & (rows < 56) & (columns >= 64) & (columns < 80)
    assert torch.equal(crop.cover[0, 0, 0] == 1, inside)


def test_clips_show_their_scene_from_some_moment_with_its_cover() -> None:
    world = replace(WorldConfig.small(), latent_frames=9)
    scenes = [sample_scene(world, seed) for seed in range(6)]
    drawn = with_cover(scenes)
    assert drawn.shape == (6, 21, 96, 160, 4)
    starts = []
    for scene, clip in zip(scenes, drawn, strict=True):
        whole, cover = render([scene])[0], silhouettes([scene])[0]
        start = next(i for i in range(13) if torch.equal(whole[i], clip[0, ..., :3]))
        assert torch.equal(cover[start : start + 21], clip[..., 3])
        starts.append(start)
    assert 0 in starts
    assert max(starts) > 0


def test_distortion_by_hand() -> None:
    video = torch.zeros(1, 3, 5, 2, 2)
    video[0, :, 2, 0, 0] = 1.0  # one pixel of one frame moves
    decoded = video.clone()
    decoded[0, :, 2, 0, 0] = 0.9
    assert moving_psnr(decoded, video) == pytest.approx(26.0206, abs=1e-3)  # 10 log10(4 / 0.01)
    assert float(psnr((decoded - video).square().mean())) == pytest.approx(26.0206 + 13.0103, abs=1e-3)  # of 20 pixels
    still = torch.zeros(2, 3, 5, 2, 2)
    flickers = still.clone()
    flickers[1, :, ::2] = 2 / 255
    assert excess_change(flickers, still).tolist() == pytest.approx([0.0, 1.0], abs=1e-5)
    assert np.isnan(moving_psnr(still, still))

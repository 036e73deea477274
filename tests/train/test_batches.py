"""What is drawn from latent clips: each frame with the caption of its own chunk."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from longtake.core.noise import rng_for
from longtake.nets.text import MiniLMEncoder
from longtake.train.batches import LatentClips

CHUNK, CHUNKS, NUM = 3, 4, 5
CAPTIONS = [[f"clip {clip}, chunk {chunk}" for chunk in range(CHUNKS)] for clip in range(NUM)]


def stored(folder: Path, **more: Tensor) -> LatentClips:
    """Latents that say which clip and frame they are."""
    names = torch.arange(NUM)[:, None] * 100 + torch.arange(CHUNKS * CHUNK)
    latents = names[:, None, :, None, None].expand(-1, 2, -1, 2, 2).half().contiguous()
    save_file({"latents": latents, **more}, folder / "0.safetensors", {"captions": json.dumps(CAPTIONS)})
    return LatentClips(folder, MiniLMEncoder(16), CHUNK, torch.device("cpu"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> LatentClips:
    return stored(tmp_path_factory.mktemp("latents"))


@pytest.mark.parametrize("latent_frames", [1, 3, 6, 12])
def test_every_frame_comes_with_the_caption_of_its_chunk(clips: LatentClips, latent_frames: int) -> None:
    batch = clips.draw(64, latent_frames, rng_for(0, ("draw",)))
    assert batch.x0.shape == (64, 2, latent_frames, 2, 2)
    names = batch.x0[:, 0, :, 0, 0].long()
    assert torch.equal(names, names[:, :1] + torch.arange(latent_frames))  # one clip, frames in order
    for name, text in zip(names, batch.text, strict=True):
        clip, frame = divmod(int(name[0]), 100)
        captions = [CAPTIONS[clip][f // CHUNK] for f in range(frame, frame + latent_frames, CHUNK)]
        rows = torch.tensor([clips.table.rows[c] for c in captions])
        assert torch.equal(text, clips.table(rows, torch.device("cpu")))


def test_single_pictures_come_from_everywhere_and_clips_from_whole_chunks(clips: LatentClips) -> None:
    pictures = clips.draw(600, 1, rng_for(0, ("draw",))).x0[:, 0, 0, 0, 0].long() % 100
    assert set(pictures.tolist()) == set(range(CHUNKS * CHUNK))
    starts = clips.draw(600, CHUNK, rng_for(0, ("draw",))).x0[:, 0, 0, 0, 0].long() % 100
    assert set(starts.tolist()) == {0, 3, 6, 9}


def test_of_the_starts_of_scenes_clips_are_drawn_from_the_start(tmp_path: Path) -> None:
    clips = stored(tmp_path, starts=torch.zeros(NUM, dtype=torch.int32))
    pictures = clips.draw(600, 1, rng_for(0, ("draw",))).x0[:, 0, 0, 0, 0].long() % 100
    assert set(pictures.tolist()) == set(range(CHUNKS * CHUNK))
    for latent_frames in (3, 9):
        starts = clips.draw(100, latent_frames, rng_for(0, ("draw",))).x0[:, 0, 0, 0, 0].long()
        assert set(starts.tolist()) == {100 * clip for clip in range(NUM)}


def test_inside_scenes_clips_say_which_of_them_open(tmp_path: Path) -> None:
    batch = stored(tmp_path, starts=torch.zeros(NUM, dtype=torch.int32)).draw(
        400, 6, rng_for(0, ("draw",)), inside=True
    )
    starts = batch.x0[:, 0, 0, 0, 0].long() % 100
    assert set(starts.tolist()) == {0, 3, 6}
    assert batch.opens is not None
    assert torch.equal(batch.opens, starts == 0)


def test_clips_of_videos_do_not_open(clips: LatentClips) -> None:
    assert clips.draw(4, 6, rng_for(0, ("draw",))).opens is None

"""Shards round-trip, resume, and refuse another world's folder."""

from pathlib import Path

import pytest
import torch

from longtake.core.errors import ConfigError, MediaError
from longtake.worlds.captions import captions_for
from longtake.worlds.preview import contact_sheet
from longtake.worlds.render import render
from longtake.worlds.sampling import sample_scene
from longtake.worlds.scenes import WorldConfig
from longtake.worlds.shards import read_shards, write_shards

SMALL = WorldConfig.small()


def test_clips_come_back_as_they_were_written(tmp_path: Path) -> None:
    write_shards(SMALL, tmp_path, 5, 100, clips_per_shard=2)
    clips = list(read_shards(tmp_path))
    assert [c.seed for c in clips] == [100, 101, 102, 103, 104]
    for clip in clips:
        assert clip.scene == sample_scene(SMALL, clip.seed)
        assert clip.captions == tuple(captions_for(clip.scene, clip.seed))
        assert torch.equal(clip.frames, render([clip.scene])[0])


def test_a_second_run_keeps_what_is_there_and_adds_the_rest(tmp_path: Path) -> None:
    write_shards(SMALL, tmp_path, 2, 0, clips_per_shard=2)
    first = tmp_path / "00000.safetensors"
    stamp = first.stat().st_mtime_ns
    seen: list[tuple[int, int]] = []
    write_shards(
        SMALL,
        tmp_path,
        3,
        0,
        clips_per_shard=2,
        progress=lambda done, all_: seen.append((done, all_)),
    )
    assert first.stat().st_mtime_ns == stamp
    assert seen == [(2, 3), (3, 3)]
    assert len(list(read_shards(tmp_path))) == 3
    assert not list(tmp_path.glob("*.tmp"))


def test_a_short_last_shard_grows_when_more_is_wanted(tmp_path: Path) -> None:
    write_shards(SMALL, tmp_path, 1, 0, clips_per_shard=2)
    write_shards(SMALL, tmp_path, 2, 0, clips_per_shard=2)
    assert [c.seed for c in read_shards(tmp_path)] == [0, 1]


def test_a_folder_of_another_world_is_refused(tmp_path: Path) -> None:
    write_shards(SMALL, tmp_path, 1, 0)
    with pytest.raises(ConfigError, match="holds other clips"):
        write_shards(WorldConfig.full(), tmp_path, 1, 0)


def test_a_folder_without_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="write_shards"):
        next(read_shards(tmp_path))


def test_a_damaged_shard_says_what_to_do(tmp_path: Path) -> None:
    write_shards(SMALL, tmp_path, 1, 0)
    (tmp_path / "00000.safetensors").write_bytes(b"short")
    with pytest.raises(MediaError, match="delete it"):
        next(read_shards(tmp_path))


def test_a_contact_sheet_has_a_row_for_every_clip() -> None:
    scenes = [sample_scene(SMALL, s).lasting(9) for s in range(2)]
    sheet = contact_sheet(scenes, columns=3)
    assert sheet.width == 3 * 162
    assert sheet.height >= 2 * 108

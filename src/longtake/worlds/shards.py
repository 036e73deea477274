"""Rendered clips on disk: shards of uint8 frames, with captions and ground truth.

A folder holds `manifest.json` and pairs `00000.safetensors` (frames) and `00000.jsonl` (one line per clip).
Files are written atomically, so an interrupted run resumes where it stopped.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from longtake.core.errors import ConfigError, InputError, MediaError
from longtake.core.files import atomic
from longtake.core.shapes import Pictures
from longtake.worlds.captions import captions_for
from longtake.worlds.render import render
from longtake.worlds.sampling import sample_scene
from longtake.worlds.scenes import FORMAT, Scene, Split, WorldConfig

MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """Rendered clip with its captions, scene and seed."""

    frames: Pictures
    captions: tuple[str, ...]  # captions, one per chunk
    scene: Scene
    seed: int


def write_shards(
    config: WorldConfig,
    out: Path,
    num_clips: int,
    seed: int,
    split: Split = "train",
    *,
    clips_per_shard: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Render clips into a folder; existing shards are kept.

    Clip i shows the scene of seed `seed + i`, so a longer run begins with the same clips.

    Args:
        config: the world.
        out: the folder, created if it does not exist.
        num_clips: number of clips that the folder will hold.
        seed: seed of the first clip.
        split: split to sample scenes from.
        clips_per_shard: clips per file; the last file may hold fewer.
        progress: callback after every shard, called with (clips so far, clips in all).

    Raises:
        ConfigError: `out` holds clips of another world, seed, split or shard size.
        InputError: a count is less than 1.
    """
    if num_clips < 1 or clips_per_shard < 1:
        raise InputError(f"num_clips and clips_per_shard must be at least 1, got {num_clips} and {clips_per_shard}")
    out.mkdir(parents=True, exist_ok=True)
    manifest = {
        "format": FORMAT,
        "config": config.hash,
        "seed": seed,
        "split": split,
        "clips_per_shard": clips_per_shard,
    }
    _claim(out / MANIFEST, manifest)
    for idx, first in enumerate(range(0, num_clips, clips_per_shard)):
        count = min(clips_per_shard, num_clips - first)
        frames_path, records_path = out / f"{idx:05d}.safetensors", out / f"{idx:05d}.jsonl"
        if _num_records(records_path) < count or not frames_path.exists():
            seeds = [seed + first + i for i in range(count)]
            scenes = [sample_scene(config, s, split) for s in seeds]
            _save_frames(render(scenes), frames_path)
            lines = [
                json.dumps({"seed": s, "captions": captions_for(c, s), "scene": c.to_json()})
                for s, c in zip(seeds, scenes, strict=True)
            ]
            # The records are written last, so a shard that has them is complete.
            _write_whole(records_path, "\n".join(lines) + "\n")
        if progress is not None:
            progress(first + count, num_clips)


def read_shards(path: Path) -> Iterator[Clip]:
    """Yield the clips of a folder in the order of their seeds.

    Raises:
        MediaError: there is no manifest, or a shard is damaged.
    """
    if not (path / MANIFEST).exists():
        raise MediaError(f"{path} has no {MANIFEST}; is it a folder that write_shards made?")
    for records_path in sorted(path.glob("*.jsonl")):
        frames_path = records_path.with_suffix(".safetensors")
        try:
            frames = load_file(frames_path)["frames"]
            records = [json.loads(line) for line in records_path.read_text().splitlines()]
        except (OSError, SafetensorError, json.JSONDecodeError, KeyError) as error:
            raise MediaError(
                f"shard {frames_path} cannot be read ({error}); delete it and its .jsonl, then write again"
            ) from error
        if len(records) != len(frames):
            raise MediaError(
                f"shard {frames_path} has {len(frames)} clips and {len(records)} records; "
                "delete both files, then write again"
            )
        for clip, record in zip(frames, records, strict=True):
            yield Clip(
                frames=clip,
                captions=tuple(record["captions"]),
                scene=Scene.from_json(record["scene"]),
                seed=record["seed"],
            )


def _claim(path: Path, manifest: dict[str, str | int]) -> None:
    if not path.exists():
        _write_whole(path, json.dumps(manifest, indent=1) + "\n")
        return
    there = json.loads(path.read_text())
    differing = [key for key, value in manifest.items() if there.get(key) != value]
    if differing:
        told = "; ".join(f"{k} is {there.get(k)}, wanted {manifest[k]}" for k in differing)
        raise ConfigError(f"{path.parent} holds other clips ({told}); choose an empty folder")


def _num_records(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def _save_frames(frames: UInt8[Tensor, "b f h w c"], path: Path) -> None:
    with atomic(path) as part:
        save_file({"frames": frames}, part)


def _write_whole(path: Path, text: str) -> None:
    with atomic(path) as part:
        part.write_text(text)

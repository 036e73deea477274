"""Training data from a folder of videos: files with captions become latent clips to fine-tune a model on.

    folder/              a.mp4 + a.txt          one caption
                         b.mp4 + b.json         {"caption": "..."} or {"captions": [{"at_s": 0, "caption": "..."}, ...]}
                         captions.csv           file,caption[,at_s]
      --> prepare -->    out/data.json          model, size and length of the clips
                         out/*.safetensors      one shard per video: latents, and a caption per chunk of each clip
                         out/skipped.json       files that could not be used, with the reasons

An existing shard is reused unless its video or its captions have changed.
"""

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from longtake.core.errors import InputError, MediaError, TrainingError
from longtake.core.files import atomic
from longtake.core.shapes import Pictures
from longtake.media.clips import Fit, stream_video
from longtake.nets.light_codec import CodecState
from longtake.train.batches import pixels
from longtake.train.codec_fit import STAGE as CODEC
from longtake.train.latents import STAGE as LATENTS
from longtake.train.stage import Context, Progress
from longtake.weights.checkpoint import link_files, write_json
from longtake.weights.presets import OpenCodec, open_codec

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif")
TABLE = "captions.csv"
ABOUT, SKIPPED = "data.json", "skipped.json"

Captions = Sequence[tuple[float, str]]  # (begin in seconds, text) in order of time; the first begins at 0


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedLatents:
    """Alternative to `LatentStage` that uses the clips of `prepare`."""

    folder: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetInfo:
    """Model and format that prepared clips are for."""

    model: str
    codec: str  # hash of the codec's weights
    width: int
    height: int
    fps: float
    chunk: int
    latent_frames: int


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Result of `prepare`: numbers of videos and clips, and skipped files."""

    videos: int
    clips: int
    skipped: Mapping[str, str]  # file -> reason


def prepare(
    folder: Path, out: Path, model: str, progress: Progress, *, device: str = "cpu", fit: Fit = "crop"
) -> Prepared:
    """Encode all videos below a folder as latent clips.

    Args:
        folder: folder of videos and their captions.
        out: folder of the shards; existing shards are reused.
        model: model whose codec, picture size, frame rate and clip length are used.
        progress: called with ("videos", done, of, metrics).
        device: device of the codec.
        fit: how pictures of another aspect ratio are brought to size.

    Raises:
        InputError: there are no videos, the table of captions cannot be read, or `out` was made for another model.
        WeightsError: the model is unknown or damaged.
    """
    opened = open_codec(model, device)
    preset = opened.preset
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(f"{folder} holds no videos ({', '.join(SUFFIXES)})")
    about = DatasetInfo(
        model=model,
        codec=opened.sha256,
        width=preset.size.width,
        height=preset.size.height,
        fps=preset.fps,
        chunk=preset.stream.chunk,
        latent_frames=preset.clip_latent_frames,
    )
    out.mkdir(parents=True, exist_ok=True)
    if (out / ABOUT).exists() and about_of(out) != about:
        raise InputError(f"{out} holds clips for another model or codec; choose another folder, or empty it")
    write_json(out / ABOUT, {name: getattr(about, name) for name in about.__slots__})
    table = _table(folder / TABLE)
    skipped: dict[str, str] = {}
    clips = 0
    for num, path in enumerate(files, 1):
        name = path.relative_to(folder).as_posix()
        try:
            captions = table.get(name) or _captions_beside(path)
            clips += _shard(path, name, captions, out, opened, fit)
        except (MediaError, InputError) as error:
            skipped[name] = str(error)
        progress("videos", num, len(files), {"clips": clips, "skipped": len(skipped)})
    write_json(out / SKIPPED, skipped)
    return Prepared(videos=len(files) - len(skipped), clips=clips, skipped=skipped)


def about_of(folder: Path) -> DatasetInfo:
    """Model and format that the prepared clips of a folder are for.

    Raises:
        InputError: the folder was not made by `prepare`.
    """
    try:
        return DatasetInfo(**json.loads((folder / ABOUT).read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{folder} holds no prepared clips ({error}); make them with longtake data prepare") from error


def run_latents(stage: PreparedLatents, context: Context) -> bool:
    """Run the latents' stage on prepared clips, which are linked into the run or copied; return True.

    Raises:
        TrainingError: the folder holds no clips.
    """
    shards = sorted(Path(stage.folder).glob("*.safetensors"))
    if not shards:
        raise TrainingError(f"{stage.folder} holds no clips; {SKIPPED} there says why")
    folder = context.begin(LATENTS, stage, about_of(Path(stage.folder)), [path.name for path in shards], after=(CODEC,))
    if not context.done(LATENTS):
        link_files(shards, folder)
        context.finish(LATENTS, shards=len(shards))
    return True


def _shard(path: Path, name: str, captions: Captions, out: Path, opened: OpenCodec, fit: Fit) -> int:
    """Write the shard of one video unless an up-to-date one exists, and return its number of clips."""
    shard = out / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.safetensors"
    source = json.dumps({"file": name, "bytes": path.stat().st_size, "captions": captions, "fit": fit})
    if (known := _known(shard)) is not None and known[0] == source:
        return known[1]
    preset, codec = opened.preset, opened.codec
    stride, device = preset.codec.stride, next(codec.parameters()).device
    latents, words = [], []
    for start, pictures in _cut(
        stream_video(path, preset.size, preset.fps, fit), stride.frames(preset.clip_latent_frames)
    ):
        with torch.inference_mode():
            latent, _ = codec.encode(pixels(pictures[None].to(device)), CodecState())
        latents.append(latent.half().cpu())
        begins = [
            start + (0 if i == 0 else stride.frames(i))
            for i in range(0, preset.clip_latent_frames, preset.stream.chunk)
        ]
        words.append([_said(captions, begin / preset.fps) for begin in begins])
    if not latents:
        seconds = stride.frames(preset.clip_latent_frames) / preset.fps
        raise InputError(f"shorter than a clip of {seconds:.2f} s")
    with atomic(shard) as part:
        save_file({"latents": torch.cat(latents)}, part, {"captions": json.dumps(words), "source": source})
    return len(latents)


def _known(shard: Path) -> tuple[str, int] | None:
    """Description of a shard's source and its number of clips; None if it is missing or cannot be read."""
    try:
        with safe_open(shard, "pt") as file:
            return (file.metadata() or {})["source"], file.get_slice("latents").get_shape()[0]
    except (OSError, SafetensorError, KeyError):
        return None


def _cut(stream: Iterator[Pictures], length: int) -> Iterator[tuple[int, Pictures]]:
    """Yield the first frame's index and the pictures of each whole clip of a video; the remainder is not used."""
    frames: list[Float[Tensor, "1 h w c"]] = []
    start = 0
    for picture in stream:
        frames.append(picture)
        if len(frames) == length:
            yield start, torch.cat(frames)
            start, frames = start + length, []


def _said(captions: Captions, at_s: float) -> str:
    return [text for begin_s, text in captions if begin_s <= at_s + 1e-6][-1]


def _captions_beside(path: Path) -> Captions:
    """Captions from the .txt or .json file with the name of the video.

    Raises:
        InputError: there is no such file, it cannot be read, or a caption is empty.
    """
    text, data = path.with_suffix(".txt"), path.with_suffix(".json")
    try:
        if text.exists():
            found = [(0.0, text.read_text("utf-8"))]
        elif data.exists():
            said = json.loads(data.read_text("utf-8"))
            timed = said.get("captions", [{"at_s": 0, **said}])
            found = [(float(one["at_s"]), one["caption"]) for one in timed]
        else:
            found = []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"its captions cannot be read: {error}") from error
    if not found:
        raise InputError(f"no caption: write {text.name} or {data.name} beside it, or a line in {TABLE}")
    return _checked(found)


def _table(path: Path) -> dict[str, Captions]:
    """Captions by file name, from a table with the columns file, caption and optionally at_s."""
    if not path.exists():
        return {}
    found: dict[str, list[tuple[float, str]]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                found.setdefault(row["file"], []).append((float(row.get("at_s") or 0), row["caption"]))
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(f"{path} needs the columns file, caption and perhaps at_s: {error}") from error
    return {name: _checked(captions) for name, captions in found.items()}


def _checked(captions: Sequence[tuple[float, str]]) -> Captions:
    """Captions in order of time, the first one moved to 0 s; raises InputError if one is empty."""
    ordered = sorted((at_s, " ".join(str(text).split())) for at_s, text in captions)
    if not all(text for _, text in ordered):
        raise InputError("a caption is empty")
    return [(0.0, ordered[0][1]), *ordered[1:]]

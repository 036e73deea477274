"""VBench (Huang et al. 2024): videos of its prompts under the names it expects, and total scores of its dimensions.

    prompts --> PROMPT-0.mp4 ... PROMPT-4.mp4 --> the official package, where it is installed --> *_eval_results.json
        --> each dimension scaled between its published bounds --> quality, semantic, total = (4 quality + semantic) / 5

Prompts of temporal flickering need 25 samples. Six dimensions need no detector and accept any videos
(`vbench evaluate --mode custom_input`). Dimensions that were not measured are listed and never counted as zero.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from longtake.core.errors import InputError

SAMPLES = 5
FLICKER = "temporal_flickering"
FLICKER_SAMPLES = 25
QUALITY_WEIGHT, SEMANTIC_WEIGHT = 4, 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Dimension:
    """Bounds between which VBench scales a dimension, and its weight in its group."""

    low: float = 0.0
    high: float = 1.0
    weight: float = 1.0

    def scaled(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)


QUALITY: Mapping[str, Dimension] = {
    "subject_consistency": Dimension(low=0.1462),
    "background_consistency": Dimension(low=0.2615),
    "temporal_flickering": Dimension(low=0.6293),
    "motion_smoothness": Dimension(low=0.706, high=0.9975),
    "aesthetic_quality": Dimension(),
    "imaging_quality": Dimension(),
    "dynamic_degree": Dimension(weight=0.5),
}
SEMANTIC: Mapping[str, Dimension] = {
    "object_class": Dimension(),
    "multiple_objects": Dimension(),
    "human_action": Dimension(),
    "color": Dimension(),
    "spatial_relationship": Dimension(),
    "scene": Dimension(high=0.8222),
    "appearance_style": Dimension(low=0.0009, high=0.2855),
    "temporal_style": Dimension(high=0.364),
    "overall_consistency": Dimension(high=0.364),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class VBenchVideo:
    """A video file that VBench expects, with the prompt and seed to generate it."""

    name: str
    prompt: str  # prompt for the model
    seed: int


@dataclass(frozen=True, kw_only=True)
class Score:
    """VBench's aggregate scores in [0, 1]; None where a dimension is missing."""

    quality: float | None
    semantic: float | None
    total: float | None
    missing: Sequence[str]


def videos_of(prompts: Path, extended: Path | None = None) -> list[VBenchVideo]:
    """Videos for a file of prompts: VBench's `VBench_full_info.json`, or text with one prompt per line.

    Args:
        prompts: file of the prompts that give the videos their names.
        extended: text with a longer prompt for the model for each prompt of `prompts`, in the same order.

    Raises:
        InputError: a file cannot be read or holds no prompts, the numbers of prompts differ, or a prompt cannot be a
            file name.
    """
    asked = list(_read(prompts))
    said = [prompt for prompt, _ in asked]
    if extended is not None:
        said = [prompt for prompt, _ in _read(extended)]
        if len(said) != len(asked):
            raise InputError(f"{extended} has {len(said)} prompts, {prompts} has {len(asked)}; each needs one")
    found: dict[str, VBenchVideo] = {}
    for (prompt, samples), longer in zip(asked, said, strict=True):
        if "/" in prompt or "\0" in prompt or len(f"{prompt}-00.mp4".encode()) > 255:
            raise InputError(f'"{prompt[:60]}" cannot be the name of a file, as VBench wants it')
        for i in range(samples):
            found[f"{prompt}-{i}.mp4"] = VBenchVideo(name=f"{prompt}-{i}.mp4", prompt=longer, seed=i)
    return list(found.values())


def results_in(folder: Path) -> dict[str, float]:
    """Value of each dimension, from all result files that VBench has written into a folder.

    Raises:
        InputError: a file cannot be read, there are no results, or a dimension is unknown.
    """
    found: dict[str, float] = {}
    for path in sorted(folder.rglob("*.json")):
        try:
            data = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read: {error}") from error
        if not isinstance(data, dict):  # VBench also writes a list of prompts beside its results
            continue
        for name, value in data.items():
            number = value[0] if isinstance(value, list) and value else value
            if isinstance(number, int | float):
                found[name.strip().lower().replace(" ", "_")] = float(number)
    if not found:
        raise InputError(f"{folder} holds no results of VBench (*_eval_results.json)")
    if unknown := sorted(found.keys() - QUALITY.keys() - SEMANTIC.keys()):
        raise InputError(f"not dimensions of VBench: {', '.join(unknown)}; known: {', '.join([*QUALITY, *SEMANTIC])}")
    return found


def score(values: Mapping[str, float]) -> Score:
    """Aggregate values of dimensions in [0, 1] as VBench does (its `cal_final_score`)."""
    quality, semantic = _mean(QUALITY, values), _mean(SEMANTIC, values)
    total = None
    if quality is not None and semantic is not None:
        total = (QUALITY_WEIGHT * quality + SEMANTIC_WEIGHT * semantic) / (QUALITY_WEIGHT + SEMANTIC_WEIGHT)
    missing = [name for name in (*QUALITY, *SEMANTIC) if name not in values]
    return Score(quality=quality, semantic=semantic, total=total, missing=missing)


def _mean(dimensions: Mapping[str, Dimension], values: Mapping[str, float]) -> float | None:
    if not dimensions.keys() <= values.keys():
        return None
    weighted = sum(d.weight * d.scaled(values[name]) for name, d in dimensions.items())
    return weighted / sum(d.weight for d in dimensions.values())


def _read(path: Path) -> Iterator[tuple[str, int]]:
    """Yield prompts and the number of samples that each needs."""
    try:
        text = path.read_text("utf-8")
        entries = json.loads(text) if path.suffix == ".json" else text.splitlines()
        for entry in entries:
            if isinstance(entry, str):
                if entry.strip():
                    yield entry.strip(), SAMPLES
            else:
                yield entry["prompt_en"], FLICKER_SAMPLES if FLICKER in entry["dimension"] else SAMPLES
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} holds no prompts, one a line or VBench_full_info.json: {error}") from error

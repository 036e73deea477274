"""A very long take: does it drift, does it grow? One line of JSON a minute, and a sheet with a picture of each.

python -m benchmarks.soak [--model M] [--recipe R] [--minutes 30] [--prompt-idx 7] [--judge FILE] [--out FILE]

The prompt is one of those that `longtake evaluate` asks (7: something that stays in the picture). Metrics are its, too:
of two seconds in every ten, averaged over a minute; `adherence` is the share of subject and place that the judge sees.
The last line compares the last minute with the first. Memory is that of the process; the spool is on disk and grows by
the latents of the take.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import torch

import longtake
from longtake.core.shapes import Pictures
from longtake.evals.judge import SECONDS, Judge, judge_for
from longtake.evals.metrics import brightness, contrast, saturation, sharpness
from longtake.evals.prompts import Asked, asked_of
from longtake.media.sheets import Row, contact_sheet, save_sheet
from longtake.studio.takes import Take
from longtake.train.run import load_recipe

EVERY_S = 10.0
MEASURES = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "sharpness": sharpness}


def sampled(take: Take, minute_s: float = 60.0) -> Iterator[Pictures]:
    """Two seconds in every ten of a minute that is streamed."""
    for _ in range(round(minute_s / EVERY_S)):
        pieces: list[Pictures] = []
        for chunk in take.stream(seconds=EVERY_S):
            pieces = [*pieces, chunk.frames][-round(SECONDS / chunk_s(take)) - 1 :]
        yield torch.cat(pieces)


def chunk_s(take: Take) -> float:
    """Seconds of a chunk."""
    return take.clock.chunk_frames / take.clock.fps


def looks(clips: list[Pictures], asked: Asked, judge: Judge, fps: float) -> dict[str, float]:
    """What a minute looks like."""
    answers = judge.see(clips, fps).answers
    seen = [answers[task][i] == asked.expected[task] for task in ("subject", "place") for i in range(len(clips))]
    metrics = {name: mean(measure(clip) for clip in clips) for name, measure in MEASURES.items()}
    return {name: round(value, 4) for name, value in {**metrics, "adherence": mean(seen)}.items()}


def resident_mib() -> float:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def soak(model: str, minutes: int, asked: Asked, judge: Judge, out: Path) -> None:
    """Stream, measure, draw."""
    shown, lines = [], []
    with longtake.open(model) as studio:
        take = studio.take(asked.prompt)
        for minute in range(1, minutes + 1):
            started = time.perf_counter()
            clips = list(sampled(take))
            wall_s = time.perf_counter() - started
            shown.append(clips[-1][-1:])
            speed = {"minute": minute, "fps": round(60 * studio.fps / wall_s, 1), "rss_mib": round(resident_mib(), 1)}
            lines.append({**speed, **looks(clips, asked, judge, studio.fps)})
            print(json.dumps(lines[-1]), flush=True)
    ratios = {f"{name}_ratio": round(lines[-1][name] / lines[0][name], 4) for name in MEASURES}
    growth = lines[-1]["rss_mib"] / lines[min(4, minutes - 1)]["rss_mib"]  # going back has filled its budget by then
    print(json.dumps({"prompt": asked.prompt, **ratios, "rss_since_minute_5": round(growth, 4)}), flush=True)
    save_sheet(
        contact_sheet([Row(pictures=torch.cat(shown), caption=f"{asked.prompt}: a picture a minute")], columns=10), out
    )


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description="Stream for a long time.")
    parser.add_argument("--model", default="tiny-world")
    parser.add_argument("--recipe", default="tiny-world")
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--prompt-idx", type=int, default=7)
    parser.add_argument("--judge", type=Path, default=Path("benchmarks/baselines/tiny-world-judge.safetensors"))
    parser.add_argument("--out", type=Path, default=Path("out/soak.png"))
    options = parser.parse_args()
    world = load_recipe(options.recipe).world
    judge = judge_for(world, options.judge, lambda *_: None)
    asked = asked_of(world, options.prompt_idx + 1)[-1]
    soak(options.model, options.minutes, asked, judge, options.out)


if __name__ == "__main__":
    main()

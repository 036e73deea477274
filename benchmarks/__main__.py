"""`python -m benchmarks`: first frames, sustained FPS, memory over length, and the student against its teacher.

    python -m benchmarks stream  [--model M] [--seconds 20]
    python -m benchmarks memory  [--model M]
    python -m benchmarks teacher [--model M]
    python -m benchmarks studio  [--model M]
    python -m benchmarks                         all of them

One JSON object a line. `cpu_per_wall` stands beside every time: below 0.8 x threads the machine was busy with something
else, and the metric says little; compare ratios from one run.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import longtake
from longtake.cli.measuring import PROMPT, cue_latency
from longtake.media.encode import Mp4Writer
from longtake.sample.cues import cues_from
from longtake.sample.model import Model, open_model
from longtake.studio.generate import generate
from longtake.studio.studio import Studio


def streamed(model: Model, seconds: float, prompt: str = PROMPT) -> dict[str, object]:
    """One take into an mp4, timed from the call to the last byte."""
    stages: dict[str, float] = {}
    chunk_s: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.perf_counter(), time.process_time()
        last, first, frames = wall, 0.0, 0
        with Mp4Writer(Path(folder) / "take.mp4", fps=model.fps, size=model.size) as writer:
            for chunk in generate(model, cues_from(prompt, [], seconds), seconds=seconds):
                before = time.perf_counter()
                writer.push(chunk.frames)
                now = time.perf_counter()
                for name, value in {**chunk.timings, "encode": now - before}.items():
                    stages[name] = stages.get(name, 0.0) + value
                frames += len(chunk.frames)
                first = first or now - wall
                chunk_s.append(now - last)
                last = now
        wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    later = sorted(chunk_s[1:]) or chunk_s
    return {
        "seconds": round(frames / model.fps, 3),
        "frames": frames,
        "first_frames_s": round(first, 3),
        "total_s": round(wall_s, 3),
        "fps": round(frames / wall_s, 2),
        "chunk_p50_s": round(later[len(later) // 2], 3),
        "chunk_p95_s": round(later[int(0.95 * (len(later) - 1))], 3),
        "share": {name: round(value / wall_s, 3) for name, value in stages.items()},
        "cpu_per_wall": round(cpu_s / wall_s, 2),
    }


def warm(name: str, *, teacher: bool = False) -> tuple[Model, float]:
    """An opened model that has made one take before, and the seconds that opening took."""
    start = time.perf_counter()
    model = open_model(name, teacher=teacher)
    opened = time.perf_counter() - start
    clip_s = model.preset.codec.stride.frames(model.preset.stream.chunk) / model.fps
    for _ in generate(model, cues_from("a boat on the sea", [], clip_s), seconds=clip_s, steps=2 if teacher else None):
        pass
    return model, opened


def stream(name: str, seconds: float) -> None:
    """Sustained speed and first frames of the student."""
    model, opened = warm(name)
    report("stream", {"open_s": round(opened, 2), **streamed(model, seconds)})


def memory(name: str) -> None:
    """Peak memory of a 20 s and a 120 s take, each in its own process."""
    peaks = {}
    for seconds in (20, 120):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", "peak", "--model", name, "--seconds", str(seconds)],
            check=True,
            capture_output=True,
            text=True,
        )
        peaks[seconds] = json.loads(done.stdout)["peak_mib"]
    report("memory", {"peak_mib": peaks, "ratio": round(peaks[120] / peaks[20], 4)})


def peak(name: str, seconds: float) -> None:
    """One take, and the most memory this process ever held."""
    metrics = streamed(open_model(name), seconds)
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report("peak", {"seconds": metrics["seconds"], "fps": metrics["fps"], "peak_mib": round(mib, 1)})


def against_teacher(name: str) -> None:
    """Student and teacher in one run, at the longest clip the teacher was trained on."""
    student, _ = warm(name)
    preset = student.preset
    clip_s = preset.codec.stride.frames(preset.clip_latent_frames) / preset.fps
    fast = streamed(student, clip_s)
    teacher, _ = warm(name, teacher=True)
    slow = streamed(teacher, clip_s)
    ratios = {
        "first_frames": round(float(str(slow["first_frames_s"])) / float(str(fast["first_frames_s"])), 1),
        "total": round(float(str(slow["total_s"])) / float(str(fast["total_s"])), 1),
    }
    report("against_teacher", {"clip_s": clip_s, "student": fast, "teacher": slow, "ratio": ratios})


def studio(name: str) -> None:
    """Cue latency, going back, and what a second branch costs."""
    with longtake.open(name) as opened:
        report("cue_latency", cue_latency(opened, num_cues=40))
        report("going_back", going_back(opened, seconds=60.0))


def going_back(studio: Studio, seconds: float) -> dict[str, object]:
    """Rewind times inside what is kept, and the bytes of a take and of a second branch of it."""
    host = torch.device("cpu")
    take = studio.take(PROMPT)
    for _ in take.stream(seconds):
        pass
    assert take.head is not None
    alone = studio.engine.snapshots.num_bytes(host)
    branch = take.retake(at=take.head.idx - 3, prompt=f"{PROMPT}, night falls")
    for _ in branch.stream(chunks=4):
        pass
    both = studio.engine.snapshots.num_bytes(host)
    times = []
    for back in range(1, 40):
        before = time.perf_counter()
        rewound = take.rewind(to=take.head.idx - 1)
        times.append(time.perf_counter() - before)
        assert rewound.to_rebuild == 0, f"{back} chunks back"
    return {
        "seconds": seconds,
        "kept": len(studio.engine.snapshots),
        "mib": round(alone / 2**20, 1),
        "second_branch_ratio": round(both / alone, 4),
        "rewind_max_ms": round(1000 * max(times), 3),
    }


def report(what: str, metrics: dict[str, object]) -> None:
    """One line of JSON, with what it was measured on."""
    machine = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    print(json.dumps({"benchmark": what, **metrics, **machine}), flush=True)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure speed and memory.")
    parser.add_argument(
        "what", nargs="?", choices=("all", "stream", "memory", "peak", "teacher", "studio"), default="all"
    )
    parser.add_argument("--model", default="tiny-world")
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    if options.what in ("all", "stream"):
        stream(options.model, options.seconds)
    if options.what in ("all", "memory"):
        memory(options.model)
    if options.what == "peak":
        peak(options.model, options.seconds)
    if options.what in ("all", "teacher"):
        against_teacher(options.model)
    if options.what in ("all", "studio"):
        studio(options.model)


if __name__ == "__main__":
    main()

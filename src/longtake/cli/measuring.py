"""Measurements of `longtake bench`: all of the time that a viewer waits.

A take is timed from the call to the last byte of its file: text, clean passes, denoising, decoding, H.264. The first
take warms up and is not counted; the cold start is timed in a new process, including interpreter and imports.
"""

import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from longtake.core.errors import LongtakeError
from longtake.media.encode import Mp4Writer
from longtake.studio.studio import Studio

PROMPT = "a tiger walks through a forest"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The timings of a take."""

    metrics: dict[str, object]
    chunks: list[dict[str, float]]  # per chunk, seconds by stage


def fresh() -> int:
    """Return a number that makes a prompt new, since cached text states would shorten the timing."""
    return time.time_ns() % 1_000_000


def streamed(studio: Studio, num_chunks: int) -> Measured:
    """Write one take of a new prompt to an mp4, timed from the call to the last byte."""
    chunks: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.perf_counter(), time.process_time()
        last, first, frames = wall, 0.0, 0
        with Mp4Writer(Path(folder) / "take.mp4", fps=studio.fps, size=studio.size) as writer:
            for chunk in studio.take(f"{PROMPT} {fresh()}").stream(chunks=num_chunks):
                before = time.perf_counter()
                writer.push(chunk.frames)
                now = time.perf_counter()
                stages = {**chunk.timings, "H.264": now - before}
                stages["other"] = max(0.0, now - last - sum(stages.values()))
                chunks.append(stages)
                frames += len(chunk.frames)
                first = first or now - wall
                last = now
        wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    later = sorted(sum(chunk.values()) for chunk in chunks[1:] or chunks)
    stages = list(dict.fromkeys(stage for chunk in chunks for stage in chunk))
    p50, p95 = at(later, 0.5), at(later, 0.95)
    metrics: dict[str, object] = {
        "seconds": round(frames / studio.fps, 3),
        "frames": frames,
        "first_frames_s": round(first, 3),
        "total_s": round(wall_s, 3),
        "fps": round(frames / wall_s, 2),
        "chunk_p50_s": round(p50, 3),
        "chunk_p95_s": round(p95, 3),
        "jitter_s": round(p95 - p50, 3),
        "share": {stage: round(sum(c.get(stage, 0.0) for c in chunks) / wall_s, 3) for stage in stages},
        "cpu_per_wall": round(cpu_s / wall_s, 2),
    }
    return Measured(metrics=metrics, chunks=chunks)


def cold_start(words: Sequence[str]) -> float:
    """Measure the seconds from the start of a process to its first frames.

    Args:
        words: arguments of a `longtake` command that generates a chunk, prints a line on stdout, and ends.

    Raises:
        LongtakeError: the process ended before its first frames.
    """
    started = time.perf_counter()
    command = [sys.executable, "-m", "longtake", *words]
    with (
        tempfile.TemporaryFile("w+") as mistakes,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=mistakes, text=True) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - started
        process.wait()
        mistakes.seek(0)
        if not line:
            raise LongtakeError(f"the process ended before its first frames: {mistakes.read().strip()[-500:]}")
    return seconds


def peak_mib(studio: Studio) -> float:
    """Peak memory in MiB, of the GPU or of this process."""
    if studio.engine.sampler.device.type == "cuda":
        return torch.cuda.max_memory_allocated(studio.engine.sampler.device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cue_latency(studio: Studio, num_cues: int) -> dict[str, object]:
    """Measure the time from cues, sent at random moments by another thread, to the first frames under each cue."""
    rng = random.Random(0)
    given: dict[int, float] = {}
    take = studio.take(PROMPT)
    start = time.perf_counter()
    for _ in take.stream(chunks=3):
        pass
    pause_s = (time.perf_counter() - start) / 3
    done = threading.Event()

    def viewer() -> None:
        try:
            for number in range(num_cues):
                time.sleep(rng.uniform(1.3, 4.0) * pause_s)
                prompt = f"{PROMPT}, {('snow falls', 'night falls')[number % 2]} {fresh()}"
                before = time.perf_counter()
                given[take.cue(prompt=prompt).due_at.chunk] = before
        finally:
            done.set()

    thread = threading.Thread(target=viewer)
    thread.start()
    latencies: list[float] = []
    chunk_s: list[float] = []
    last = time.perf_counter()
    for chunk in take.stream():
        now = time.perf_counter()
        chunk_s.append(now - last)
        last = now
        if chunk.index in given:
            latencies.append(now - given.pop(chunk.index))
        if done.is_set() and not given:
            break
    thread.join()
    typical = median(chunk_s)
    return {
        "cues": len(latencies),
        "chunk_s": round(typical, 3),
        "p50_s": round(at(latencies, 0.5), 3),
        "p95_s": round(at(latencies, 0.95), 3),
        "p50_chunks": round(at(latencies, 0.5) / typical, 2),
        "p95_chunks": round(at(latencies, 0.95) / typical, 2),
    }


def at(values: Sequence[float], share: float) -> float:
    """The quantile at `share`, in [0, 1], of unsorted values."""
    return sorted(values)[round(share * (len(values) - 1))]


def machine(studio: Studio) -> dict[str, object]:
    """Device, torch version and precision of a measurement."""
    device = studio.engine.sampler.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return {"device": name, "torch": torch.__version__, "precision": str(studio.model.dit.dtype).removeprefix("torch.")}

"""Writes chunks to a file and reports progress. Independent of the model: any iterable of chunks will do."""

import json
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from rich.console import Console
from rich.live import Live
from rich.text import Text
from torch import Tensor

from longtake.cli import STARTED_S, show_notice
from longtake.core.shapes import PictureSize
from longtake.media.animations import open_writer
from longtake.media.enlarged import scaled_size
from longtake.sample.cues import TimedPrompt
from longtake.sample.words import UnknownWord


@runtime_checkable
class ModelFacts(Protocol):
    """The properties of a model that reports need."""

    @property
    def name(self) -> str:
        """Name of the preset or folder."""
        ...

    @property
    def digest(self) -> str:
        """Hash of its weights."""
        ...

    @property
    def fps(self) -> float:
        """Frames per second."""
        ...


@runtime_checkable
class RecordableChunk(Protocol):
    """A chunk of a take, as the sampler returns it."""

    @property
    def frames(self) -> Tensor | np.ndarray:
        """Pictures, uint8 of shape `frames height width rgb`."""
        ...

    @property
    def index(self) -> int:
        """Index of the chunk, from 0."""
        ...

    @property
    def start_s(self) -> float:
        """Start time in the take, in seconds."""
        ...

    @property
    def prompt(self) -> str:
        """Prompt of the chunk."""
        ...

    @property
    def timings(self) -> Mapping[str, float]:
        """Seconds by stage."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordingStarted:
    """What will be recorded, and how many seconds the model took to open."""

    model: str
    digest: str
    fps: float
    size: str
    out: Path
    load_s: float
    cues: tuple[TimedPrompt, ...]
    unknown_words: tuple[UnknownWord, ...]  # words of the prompts that it was not trained on


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """State of a recording after a chunk. `fps` counts all time since the start, including text and encoding."""

    idx: int
    num_chunks: int
    start_s: float
    prompt: str
    frames: int
    bytes_written: int
    wall_s: float
    first_frame_after_s: float
    fps: float
    timings: dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordingSummary:
    """A finished recording. `path` is None when it was interrupted before the first chunk."""

    path: Path | None
    frames: int
    duration_s: float
    wall_s: float
    first_frame_after_s: float | None  # since the first chunk was begun
    first_frame_since_start_s: float | None  # since the command began, imports and loading included
    fps: float
    real_time_factor: float
    interrupted: bool


@runtime_checkable
class Report(Protocol):
    """Receives the events of a recording and reports them to people or programs."""

    def started(self, opening: RecordingStarted) -> None:
        """Report that the model is open and the first chunk is being generated."""
        ...

    def cue_applied(self, chunk_idx: int, start_s: float, prompt: str) -> None:
        """Report that chunk `chunk_idx` is the first one under another prompt."""
        ...

    def chunk_done(self, progress: Progress) -> None:
        """Report that a chunk is in the file."""
        ...

    def finished(self, take: RecordingSummary) -> None:
        """Report that the recording is finished and the file has its final name."""
        ...


def record(
    model: ModelFacts,
    chunks: Iterable[RecordableChunk],
    *,
    cues: Sequence[TimedPrompt],
    size: PictureSize,
    out: Path,
    report: Report,
    load_s: float,
    num_chunks: int = 0,
    unknown_words: Sequence[UnknownWord] = (),
    scale: int = 1,
) -> RecordingSummary:
    """Write chunks to a file as they arrive. Ctrl-C ends the take: the finished chunks make a complete file.

    Args:
        model: the properties for the report; the fps of the file.
        chunks: the chunks, generated one by one while this runs.
        cues: the prompts and their times, for the report.
        size: size of the pictures.
        out: the file; its suffix selects the format.
        report: receives every event.
        load_s: seconds that the model took to open, for the report.
        num_chunks: expected number of chunks, for the report; 0: unknown.
        unknown_words: words of the prompts that the model was not trained on, for the report.
        scale: factor by which the pictures are enlarged.

    Raises:
        MediaError: the file cannot be written; see `open_writer` and `Mp4Writer.push`.
    """
    show_notice("")
    started = time.perf_counter()
    report.started(
        RecordingStarted(
            model=model.name,
            digest=model.digest,
            fps=model.fps,
            size=str(scaled_size(size, scale)),
            out=out,
            load_s=load_s,
            cues=tuple(cues),
            unknown_words=tuple(unknown_words),
        )
    )
    first_frame_after_s: float | None = None
    since_start_s: float | None = None
    wall_s, prompt, interrupted = 0.0, cues[0].prompt, False
    with open_writer(out, fps=model.fps, size=size, scale=scale) as writer:
        try:
            for chunk in chunks:
                with interrupts_held():
                    writer.push(torch.as_tensor(chunk.frames))
                    wall_s = time.perf_counter() - started
                    if first_frame_after_s is None:
                        first_frame_after_s = wall_s
                        since_start_s = time.perf_counter() - STARTED_S
                    if chunk.prompt != prompt:
                        prompt = chunk.prompt
                        report.cue_applied(chunk.index, chunk.start_s, prompt)
                    report.chunk_done(
                        Progress(
                            idx=chunk.index,
                            num_chunks=max(num_chunks, chunk.index + 1),
                            start_s=chunk.start_s,
                            prompt=prompt,
                            frames=writer.frames_written,
                            bytes_written=writer.bytes_written,
                            wall_s=wall_s,
                            first_frame_after_s=first_frame_after_s,
                            fps=writer.frames_written / wall_s,
                            timings=dict(chunk.timings),
                        )
                    )
        except KeyboardInterrupt:
            interrupted = True
        with interrupts_held(raise_after=False):
            if interrupted and not writer.frames_written:
                writer.abort()
            else:
                writer.close()
    fps = writer.frames_written / wall_s if wall_s else 0.0
    take = RecordingSummary(
        path=out if writer.frames_written else None,
        frames=writer.frames_written,
        duration_s=writer.frames_written / model.fps,
        wall_s=wall_s,
        first_frame_after_s=first_frame_after_s,
        first_frame_since_start_s=since_start_s,
        fps=fps,
        real_time_factor=fps / model.fps,
        interrupted=interrupted,
    )
    report.finished(take)
    return take


@contextmanager
def interrupts_held(*, raise_after: bool = True) -> Iterator[None]:
    """Defer Ctrl-C to the end of the block, so that no frame is half encoded; `raise_after`: raise it there."""
    pending: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pending.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pending and raise_after:
        raise KeyboardInterrupt


class JsonLines:
    """Writes every event as one JSON object on a line of stdout."""

    def started(self, opening: RecordingStarted) -> None:
        """Write `started`: a `RecordingStarted`."""
        self._write("started", **asdict(opening))

    def cue_applied(self, chunk_idx: int, start_s: float, prompt: str) -> None:
        """Write `cue_applied`: the first chunk under another prompt."""
        self._write("cue_applied", idx=chunk_idx, start_s=start_s, prompt=prompt)

    def chunk_done(self, progress: Progress) -> None:
        """Write `chunk`: a `Progress`."""
        self._write("chunk", **asdict(progress))

    def finished(self, take: RecordingSummary) -> None:
        """Write `finished`: a `RecordingSummary`."""
        self._write("finished", **asdict(take))

    def _write(self, event: str, **fields: object) -> None:
        sys.stdout.write(json.dumps({"event": event, **fields}, default=str) + "\n")
        sys.stdout.flush()


class LiveLine:
    """Shows one line that is updated while the take grows, then a summary."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, transient=True, refresh_per_second=4)

    def started(self, opening: RecordingStarted) -> None:
        """Start the line, if stderr is a terminal."""
        if opening.unknown_words:
            self._console.print(unknown_text(opening), markup=False, soft_wrap=True)
        if self._console.is_terminal:
            self._live.start()
            self._live.update(
                _line(f"{opening.model} {opening.size}, opened in {opening.load_s:.1f} s · first frames are being made")
            )

    def cue_applied(self, chunk_idx: int, start_s: float, prompt: str) -> None:
        """Do nothing: the line shows the prompt anyway."""

    def chunk_done(self, progress: Progress) -> None:
        """Update the line."""
        self._live.update(_line(progress_text(progress)))

    def finished(self, take: RecordingSummary) -> None:
        """Replace the line by the summary."""
        self._live.stop()
        sys.stdout.write(summary_text(take) + "\n")


class ChunkLog:
    """Prints one line for every chunk, then the summary."""

    def started(self, opening: RecordingStarted) -> None:
        """Print what will be recorded."""
        if opening.unknown_words:
            sys.stdout.write(unknown_text(opening) + "\n")
        sys.stdout.write(f"{opening.model} {opening.size} at {opening.fps:g} fps, opened in {opening.load_s:.2f} s\n")

    def cue_applied(self, chunk_idx: int, start_s: float, prompt: str) -> None:
        """Print the chunk, its time and the prompt."""
        sys.stdout.write(f"cue applied at chunk {chunk_idx + 1}, {start_s:.2f} s: {prompt}\n")

    def chunk_done(self, progress: Progress) -> None:
        """Print the progress, with the time of every stage."""
        stages = " ".join(f"{name} {wall_s * 1000:.0f} ms" for name, wall_s in progress.timings.items())
        sys.stdout.write(f"{progress_text(progress)}{' · ' if stages else ''}{stages}\n")
        sys.stdout.flush()

    def finished(self, take: RecordingSummary) -> None:
        """Print the summary."""
        sys.stdout.write(summary_text(take) + "\n")


def progress_text(progress: Progress) -> str:
    """Progress in one line: "first frame after 0.52 s · 21.3 FPS · chunk 5/14 · a tiger walks"."""
    return (
        f"first frame after {progress.first_frame_after_s:.2f} s · {progress.fps:.1f} FPS · "
        f"chunk {progress.idx + 1}/{progress.num_chunks} · {progress.prompt}"
    )


def unknown_text(opening: RecordingStarted) -> str:
    """The words of the prompts that the model was not trained on, in one line."""
    told = ", ".join(map(str, opening.unknown_words))
    return f"note: {opening.model} was not trained on {told}; longtake models show {opening.model} lists what it knows"


def summary_text(take: RecordingSummary) -> str:
    """What was recorded and how fast, in one line."""
    if take.path is None or take.first_frame_after_s is None:
        return "interrupted before the first chunk was done; nothing was saved"
    told = (
        f"{take.path} · {take.duration_s:.2f} s, {take.frames} frames · first frame after "
        f"{take.first_frame_after_s:.2f} s ({take.first_frame_since_start_s:.2f} s after the command) · "
        f"{take.fps:.1f} FPS · {take.real_time_factor:.2f}x real time"
    )
    return f"interrupted; saved the chunks made so far: {told}" if take.interrupted else told


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")

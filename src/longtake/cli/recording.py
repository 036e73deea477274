"""Chunks into a file, and what is said while they arrive. Knows no model: anything that yields chunks will do."""

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

from longtake.core.shapes import PictureSize
from longtake.media.animations import open_writer
from longtake.media.enlarged import scaled_size
from longtake.sample.cues import TimedPrompt
from longtake.sample.words import UnknownWord


@runtime_checkable
class ModelFacts(Protocol):
    """What is said about a model in a report."""

    @property
    def name(self) -> str:
        """Of the preset or folder."""
        ...

    @property
    def digest(self) -> str:
        """Hash of its weights."""
        ...

    @property
    def fps(self) -> float:
        """Frames that make a second."""
        ...


@runtime_checkable
class RecordableChunk(Protocol):
    """Some seconds of a take, as the sampler hands them over."""

    @property
    def frames(self) -> Tensor | np.ndarray:
        """uint8, `f h w c`, RGB."""
        ...

    @property
    def index(self) -> int:
        """Counted from 0."""
        ...

    @property
    def start_s(self) -> float:
        """Where in the take it begins."""
        ...

    @property
    def prompt(self) -> str:
        """What it was asked to show."""
        ...

    @property
    def timings(self) -> Mapping[str, float]:
        """Seconds by stage."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordingStarted:
    """What is about to be made, and how long the model took to open."""

    model: str
    digest: str
    fps: float
    size: str
    out: Path
    load_s: float
    cues: tuple[TimedPrompt, ...]
    unknown_words: tuple[UnknownWord, ...]  # of the prompts; the model was not trained on them


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a recording stands after a chunk. FPS counts everything since the start, text and encoding included."""

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
    first_frame_after_s: float | None
    fps: float
    real_time_factor: float
    interrupted: bool


@runtime_checkable
class Report(Protocol):
    """Tells a person or a machine how the take comes along."""

    def started(self, opening: RecordingStarted) -> None:
        """The model is open and the first chunk is being made."""
        ...

    def cue_applied(self, chunk_idx: int, start_s: float, prompt: str) -> None:
        """Chunk `chunk_idx` is the first one under another prompt."""
        ...

    def chunk_done(self, progress: Progress) -> None:
        """A chunk is in the file."""
        ...

    def finished(self, take: RecordingSummary) -> None:
        """The file has its name."""
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
    """Write chunks as they arrive. Ctrl-C ends the take: the chunks that were done make a complete file.

    Args:
        model: for the report, and for the fps of the file.
        chunks: made one by one while this runs.
        cues: for the report.
        size: of the pictures.
        out: the file; its suffix chooses the format.
        report: told of every event.
        load_s: how long the model took to open.
        num_chunks: that are expected, for the report; 0: nobody knows.
        unknown_words: of the prompts, for the report.
        scale: how many times larger than they are made the pictures are written.

    Raises:
        MediaError: the file cannot be written; see `open_writer` and `Mp4Writer.push`.
    """
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
    wall_s, prompt, interrupted = 0.0, cues[0].prompt, False
    with open_writer(out, fps=model.fps, size=size, scale=scale) as writer:
        try:
            for chunk in chunks:
                with interrupts_held():
                    writer.push(torch.as_tensor(chunk.frames))
                    wall_s = time.perf_counter() - started
                    if first_frame_after_s is None:
                        first_frame_after_s = wall_s
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
        fps=fps,
        real_time_factor=fps / model.fps,
        interrupted=interrupted,
    )
    report.finished(take)
    return take


@contextmanager
def interrupts_held(*, raise_after: bool = True) -> Iterator[None]:
    """Ctrl-C waits until the block is done, so that no frame is half encoded; then it raises KeyboardInterrupt."""
    pending: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pending.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pending and raise_after:
        raise KeyboardInterrupt


class JsonLines:
    """Every event as one JSON object on a line of stdout."""

    def started(self, opening: RecordingStarted) -> None:
        """`started`: what will be made, and how long the model took to open."""
        self._write("started", **asdict(opening))

    def cue_applied(self, chunk_idx: int, start_s: float, prompt: str) -> None:
        """`cue_applied`: the chunk from which another prompt holds."""
        self._write("cue_applied", idx=chunk_idx, start_s=start_s, prompt=prompt)

    def chunk_done(self, progress: Progress) -> None:
        """`chunk`: a `Progress`."""
        self._write("chunk", **asdict(progress))

    def finished(self, take: RecordingSummary) -> None:
        """`finished`: a `Take`."""
        self._write("finished", **asdict(take))

    def _write(self, event: str, **fields: object) -> None:
        sys.stdout.write(json.dumps({"event": event, **fields}, default=str) + "\n")
        sys.stdout.flush()


class LiveLine:
    """One line that changes while the take grows, then one that says what came of it."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, transient=True, refresh_per_second=4)

    def started(self, opening: RecordingStarted) -> None:
        """Show that work has begun; on something that is no terminal, nothing moves."""
        if opening.unknown_words:
            self._console.print(unknown_text(opening), markup=False, soft_wrap=True)
        if self._console.is_terminal:
            self._live.start()
            self._live.update(
                _line(f"{opening.model} {opening.size}, opened in {opening.load_s:.1f} s · first frames are being made")
            )

    def cue_applied(self, chunk_idx: int, start_s: float, prompt: str) -> None:
        """The line carries the prompt anyway."""

    def chunk_done(self, progress: Progress) -> None:
        """Move the line on."""
        self._live.update(_line(progress_text(progress)))

    def finished(self, take: RecordingSummary) -> None:
        """Leave the summary."""
        self._live.stop()
        sys.stdout.write(summary_text(take) + "\n")


class ChunkLog:
    """One lasting line for every chunk, then the summary."""

    def started(self, opening: RecordingStarted) -> None:
        """What will be made."""
        if opening.unknown_words:
            sys.stdout.write(unknown_text(opening) + "\n")
        sys.stdout.write(f"{opening.model} {opening.size} at {opening.fps:g} fps, opened in {opening.load_s:.2f} s\n")

    def cue_applied(self, chunk_idx: int, start_s: float, prompt: str) -> None:
        """A line of its own."""
        sys.stdout.write(f"cue applied at chunk {chunk_idx + 1}, {start_s:.2f} s: {prompt}\n")

    def chunk_done(self, progress: Progress) -> None:
        """The progress, with the time of every stage."""
        stages = " ".join(f"{name} {wall_s * 1000:.0f} ms" for name, wall_s in progress.timings.items())
        sys.stdout.write(f"{progress_text(progress)}{' · ' if stages else ''}{stages}\n")
        sys.stdout.flush()

    def finished(self, take: RecordingSummary) -> None:
        """The summary."""
        sys.stdout.write(summary_text(take) + "\n")


def progress_text(progress: Progress) -> str:
    """ "first frame after 0.52 s · 21.3 FPS · chunk 5/14 · a tiger walks"."""
    return (
        f"first frame after {progress.first_frame_after_s:.2f} s · {progress.fps:.1f} FPS · "
        f"chunk {progress.idx + 1}/{progress.num_chunks} · {progress.prompt}"
    )


def unknown_text(opening: RecordingStarted) -> str:
    """Which words of the prompts the model was not trained on, in one line."""
    told = ", ".join(map(str, opening.unknown_words))
    return f"note: {opening.model} was not trained on {told}; longtake models show {opening.model} lists what it knows"


def summary_text(take: RecordingSummary) -> str:
    """What was made and how fast, in one line."""
    if take.path is None or take.first_frame_after_s is None:
        return "interrupted before the first chunk was done; nothing was saved"
    told = (
        f"{take.path} · {take.duration_s:.2f} s, {take.frames} frames · first frame after "
        f"{take.first_frame_after_s:.2f} s · {take.fps:.1f} FPS · {take.real_time_factor:.2f}x real time"
    )
    return f"interrupted; saved the chunks made so far: {told}" if take.interrupted else told


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")

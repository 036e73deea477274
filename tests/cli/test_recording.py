"""What `longtake generate` does with chunks, told by a model of painted frames: same seam, no network."""

import io
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import pytest
import torch
from torch import Tensor

from longtake.cli.recording import ChunkLog, JsonLines, LiveLine, RecordingSummary, Report, record
from longtake.core.errors import MediaError
from longtake.core.shapes import PictureSize
from longtake.sample.cues import TimedPrompt, cues_from

SIZE = PictureSize(height=32, width=48)


@dataclass(frozen=True)
class PaintedModel:
    name: str = "painted"
    digest: str = "0" * 16
    fps: float = 16.0


@dataclass(frozen=True, kw_only=True)
class PaintedChunk:
    index: int
    start_s: float
    prompt: str
    frames: Tensor
    timings: dict[str, float]


@pytest.fixture(autouse=True)
def ctrl_c_reaches_python() -> Iterator[None]:
    """A shell starts what it runs in the background with SIGINT ignored, and a child inherits that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def painted(cues: Sequence[TimedPrompt], num_chunks: int = 4) -> Iterator[PaintedChunk]:
    """Twelve grey frames a chunk."""
    for idx in range(num_chunks):
        start_s = idx * 0.75
        yield PaintedChunk(
            index=idx,
            start_s=start_s,
            prompt=[cue.prompt for cue in cues if cue.at_s <= start_s][-1],
            frames=torch.full((12, 32, 48, 3), 40 * idx, dtype=torch.uint8),
            timings={"denoise": 0.25, "decode": 0.125},
        )


def interrupted_after(chunks: Iterator[PaintedChunk], num: int) -> Iterator[PaintedChunk]:
    """Ctrl-C while chunk `num` is being made."""
    for _, chunk in zip(range(num), chunks, strict=False):
        yield chunk
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)


def shoot(out: Path, chunks: Iterator[PaintedChunk], cues: Sequence[TimedPrompt], report: Report) -> RecordingSummary:
    return record(PaintedModel(), chunks, cues=cues, size=SIZE, out=out, report=report, load_s=0.5, num_chunks=4)


def num_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp", ".png"])
def test_a_take_becomes_a_file_and_a_summary(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    cues = cues_from("a tiger walks", [], 3)
    out = tmp_path / "new folder" / f"take{suffix}"
    take = shoot(out, painted(cues), cues, LiveLine())
    assert (take.path, take.frames, take.duration_s, take.interrupted) == (out, 48, 3.0, False)
    assert take.real_time_factor == pytest.approx(take.fps / 16)
    assert out.stat().st_size > 100
    shown = capsys.readouterr().out
    summary = (
        rf"{re.escape(str(out))} · 3\.00 s, 48 frames · first frame after [\d.]+ s "
        r"\([\d.]+ s after the command\) · [\d.]+ FPS · [\d.]+x real time\n"
    )
    assert re.fullmatch(summary, shown)


def test_json_is_one_object_a_line_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cues = cues_from("a tiger walks, then it snows", [], 3)
    out = tmp_path / "take.mp4"
    shoot(out, painted(cues), cues, JsonLines())
    shown = capsys.readouterr()
    events = [json.loads(line) for line in shown.out.splitlines()]
    assert shown.err == ""
    assert [event["event"] for event in events] == [
        "started",
        *["chunk"] * 2,
        "cue_applied",
        *["chunk"] * 2,
        "finished",
    ]
    started, cue_applied, finished = events[0], events[3], events[-1]
    assert started["cues"] == [
        {"at_s": 0.0, "prompt": "a tiger walks"},
        {"at_s": 1.5, "prompt": "a tiger walks, it snows"},
    ]
    assert (started["model"], started["size"], started["load_s"]) == ("painted", "48x32", 0.5)
    assert (cue_applied["idx"], cue_applied["start_s"], cue_applied["prompt"]) == (2, 1.5, "a tiger walks, it snows")
    chunks = [event for event in events if event["event"] == "chunk"]
    assert [chunk["frames"] for chunk in chunks] == [12, 24, 36, 48]
    assert all(chunk["timings"] == {"denoise": 0.25, "decode": 0.125} for chunk in chunks)
    assert all(before["bytes_written"] < after["bytes_written"] for before, after in itertools.pairwise(chunks))
    assert (finished["path"], finished["frames"], finished["interrupted"]) == (str(out), 48, False)


def test_the_chunk_log_has_a_line_for_every_chunk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cues = cues_from("a tiger walks, then it snows", [], 3)
    shoot(tmp_path / "take.mp4", painted(cues), cues, ChunkLog())
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if "denoise 250 ms decode 125 ms" in line]) == 4
    assert "cue applied at chunk 3, 1.50 s: a tiger walks, it snows" in lines


def test_ctrl_c_keeps_the_chunks_made_so_far(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cues = cues_from("a tiger walks", [], 3)
    out = tmp_path / "take.mp4"
    take = shoot(out, interrupted_after(painted(cues), 2), cues, LiveLine())
    assert (take.interrupted, take.frames) == (True, 24)
    assert num_frames(out) == 24
    assert [path.name for path in tmp_path.iterdir()] == ["take.mp4"]
    assert f"interrupted; saved the chunks made so far: {out} · 1.50 s, 24 frames" in capsys.readouterr().out


def test_ctrl_c_before_the_first_chunk_leaves_what_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cues = cues_from("a tiger walks", [], 3)
    out = tmp_path / "take.mp4"
    out.write_bytes(b"an older take")
    take = shoot(out, interrupted_after(painted(cues), 0), cues, LiveLine())
    assert (take.interrupted, take.path, take.frames) == (True, None, 0)
    assert out.read_bytes() == b"an older take"
    assert [path.name for path in tmp_path.iterdir()] == ["take.mp4"]
    assert "nothing was saved" in capsys.readouterr().out


def test_an_error_of_the_model_leaves_no_half_file(tmp_path: Path) -> None:
    cues = cues_from("a tiger walks", [], 3)

    def breaks() -> Iterator[PaintedChunk]:
        yield next(painted(cues))
        raise MediaError("the model stumbled")

    with pytest.raises(MediaError, match="stumbled"):
        shoot(tmp_path / "take.mp4", breaks(), cues, JsonLines())
    assert not list(tmp_path.iterdir())


def test_the_file_grows_while_chunks_arrive(tmp_path: Path) -> None:
    cues = cues_from("a tiger walks", [], 3)
    seen: list[int] = []

    def watched() -> Iterator[PaintedChunk]:
        for chunk in painted(cues):
            if chunk.index:
                seen.append(num_frames(tmp_path / "take.part.mp4"))
            yield chunk

    shoot(tmp_path / "take.mp4", watched(), cues, JsonLines())
    assert seen == [11, 23, 35]


def test_a_real_interrupt_ends_the_process_with_a_whole_file(tmp_path: Path) -> None:
    code = textwrap.dedent(
        f"""
        import sys, time, torch
        from dataclasses import dataclass
        from pathlib import Path
        from longtake.cli.recording import JsonLines, record
        from longtake.core.shapes import PictureSize
        from longtake.sample.cues import cues_from

        @dataclass
        class Model:
            name: str = "painted"
            digest: str = ""
            fps: float = 16.0

        @dataclass
        class Chunk:
            index: int
            start_s: float = 0.0
            prompt: str = "a tiger walks"

            @property
            def frames(self):
                return torch.zeros(12, 32, 48, 3, dtype=torch.uint8)

            @property
            def timings(self):
                return {{}}

        def chunks():
            for idx in range(1000):
                time.sleep(0.03)
                yield Chunk(idx)

        take = record(Model(), chunks(), cues=cues_from("a tiger walks", [], 3), size=PictureSize(height=32, width=48),
                      out=Path({str(tmp_path / "take.mp4")!r}), report=JsonLines(), load_s=0.0)
        sys.exit(130 if take.interrupted else 0)
        """
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert isinstance(process.stdout, io.TextIOBase)
        lines = [process.stdout.readline() for _ in range(4)]
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read().splitlines()
    finished = json.loads(rest[-1])
    assert process.returncode == 130
    assert json.loads(lines[0])["event"] == "started"
    assert (finished["event"], finished["interrupted"]) == ("finished", True)
    assert num_frames(tmp_path / "take.mp4") == finished["frames"] >= 36
    assert [path.name for path in tmp_path.iterdir()] == ["take.mp4"]

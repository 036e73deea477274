"""`longtake generate`: a prompt becomes a file that can be watched while it is being made."""

import time
from pathlib import Path
from typing import Annotated

import typer

from longtake.core.errors import InputError
from longtake.sample.cues import cues_from


def generate(
    prompt: Annotated[str, typer.Argument(help='What is seen. ", then " inside it changes the take half-way.')],
    *,
    then: Annotated[
        list[str] | None,
        typer.Option(
            "--then", metavar="CUE", help='A change at a time: "4s: it starts to snow". Give as many as you like.'
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(metavar="S", help="How long the take lasts.")] = 10.0,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed and prompts give the same take.")] = 0,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Width and height in pixels; the model's own if not given.")
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="A preset (longtake models lists them) or a folder.")
    ] = "tiny-world",
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Where to: .mp4, .gif, .webp, or .png for a contact sheet.")
    ] = Path("take.mp4"),
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="Denoising steps a chunk; the model's own if not given.")
    ] = None,
    teacher: Annotated[
        bool, typer.Option("--teacher", help="Use the slow many-step teacher, which makes the whole take at once.")
    ] = False,
    json_lines: Annotated[
        bool, typer.Option("--json", help="One JSON object a line on stdout, for machines, and nothing else.")
    ] = False,
    chunk_log: Annotated[bool, typer.Option("--chunk-log", help="Print a line for every chunk.")] = False,
) -> None:
    """Make a video from a prompt.

    The file grows while frames arrive (FILE.part.mp4 can be watched) and takes its name when it is done. Ctrl-C
    finishes it with the chunks made so far.

    A change continues the take: the model is told the opening prompt and every change so far, joined by commas.
    """
    cues = cues_from(prompt, then or (), seconds)
    if steps is not None and steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}")
    if not -(2**63) <= seed < 2**63:
        raise InputError(f"seed must fit in 64 bits, got {seed}")

    from longtake.core.shapes import PictureSize
    from longtake.media.animations import check_suffix
    from longtake.media.targets import check_target

    check_suffix(out)
    wanted = PictureSize.parse(size) if size is not None else None
    check_target(out)

    from longtake.cli.recording import ChunkLog, JsonLines, LiveLine, record
    from longtake.sample.generate import generate as chunks_of
    from longtake.sample.generate import open_model

    load_started = time.perf_counter()
    opened = open_model(model, teacher=teacher)
    if wanted is not None:
        # the model's own complaint, before the file's: it names the nearest size that works
        wanted.latent(opened.preset.codec.stride, opened.preset.dit.patch)
    report = JsonLines() if json_lines else ChunkLog() if chunk_log else LiveLine()
    take = record(
        opened,
        chunks_of(opened, cues, seconds=seconds, seed=seed, size=wanted, steps=steps),
        cues=cues,
        size=wanted or opened.size,
        out=out,
        report=report,
        load_s=time.perf_counter() - load_started,
    )
    if take.interrupted:
        raise typer.Exit(130)

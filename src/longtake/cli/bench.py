"""`longtake bench`: measures the speed of a model on this machine, end to end, and draws a chart."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longtake.cli.directing import Compiled, Device, Fp8, parsed_size
from longtake.core.errors import InputError

if TYPE_CHECKING:
    from longtake.studio.studio import Studio


class CodecName(StrEnum):
    """Wan's own codec, or the light one that was made for its latents."""

    FULL = "full"
    LIGHT = "light"


def bench(
    *,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="A model that is here; any preset with --random-weights.")
    ] = ("tiny-world"),
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="Time the preset without its weights, and without its text encoder."),
    ] = False,
    chunks: Annotated[int, typer.Option(metavar="N", help="How many chunks are timed.")] = 27,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="The model's own if not given.")] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Denoising steps a chunk.")] = None,
    window: Annotated[int | None, typer.Option(metavar="N", help="Latent frames in sight.")] = None,
    codec: Annotated[
        CodecName, typer.Option(metavar="full|light", help="Of Wan, with --random-weights.")
    ] = CodecName.FULL,
    device: Device = None,
    fp8: Fp8 = False,
    compiled: Compiled = False,
    cues: Annotated[
        int, typer.Option(metavar="N", help="How many cues are given to time what they take; 0: none.")
    ] = 20,
    cold: Annotated[bool, typer.Option("--cold/--no-cold", help="Time the start of a new process, too.")] = True,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="A .json; its picture lies beside it.")] = None,
    first_frames_only: Annotated[bool, typer.Option("--first-frames-only", hidden=True)] = False,
) -> None:
    """Time a model: cold start, first frames, every chunk, what each stage takes, cues, peak memory.

    Text, clean passes, denoising, decoding and H.264 are all included. One JSON object on stdout.
    """
    if chunks < 2:
        raise InputError(f"--chunks must be at least 2, got {chunks}")
    if codec is CodecName.LIGHT and not random_weights:
        raise InputError("--codec is for --random-weights; an imported model has the codec it was imported with")
    from longtake.cli.measuring import (
        PROMPT,
        cold_start,
        cue_latency,
        fresh,
        machine,
        peak_mib,
        streamed,
    )
    from longtake.cli.progress import Bars

    named = codec if random_weights else None
    if first_frames_only:
        with _opened(model, size, steps, window, device, named, fp8=fp8, compiled=compiled) as studio:
            next(studio.take(f"{PROMPT} {fresh()}").stream(chunks=1))
        sys.stdout.write("first frames\n")
        sys.stdout.flush()
        return
    options = {"--size": size, "--steps": steps, "--window": window, "--device": device}
    words = ["bench", "--model", model, "--codec", codec.value, "--first-frames-only"]
    words += [word for name, value in options.items() if value is not None for word in (name, str(value))]
    flags = {"--random-weights": random_weights, "--fp8": fp8, "--compile": compiled}
    words += [flag for flag, given in flags.items() if given]
    total = 2 + cold + bool(cues)
    with Bars() as bars:
        cold_s = cold_start(words) if cold else None  # before this process uses the device
        bars.update("measuring", int(cold), total, {})
        studio = _opened(model, size, steps, window, device, named, fp8=fp8, compiled=compiled)
        studio.warm_up(until_full=True)
        bars.update("measuring", 1 + cold, total, {})
        made = streamed(studio, chunks)
        bars.update("measuring", 2 + cold, total, {})
        latency = cue_latency(studio, cues) if cues else None
        bars.update("measuring", total, total, {})
    with studio:
        preset = studio.model.preset
        metrics = {
            "model": model,
            "weights": "random, text encoder left out" if random_weights else studio.model.digest,
            "size": str(studio.size),
            "steps": preset.student.num_steps,
            "window": preset.stream.window,
            "codec": preset.codec.kind,
            "fp8": fp8,
            "compiled": compiled,
            "cold_start_s": None if cold_s is None else round(cold_s, 2),
            **made.metrics,
            "cue_latency": latency,
            "peak_mib": round(peak_mib(studio), 1),
            **machine(studio),
        }
    sys.stdout.write(json.dumps(metrics) + "\n")
    if out is not None:
        _save(out, metrics, made.chunks, studio.clock.chunk_frames / studio.fps)


def _save(out: Path, metrics: dict[str, object], chunks: list[dict[str, float]], real_time_s: float) -> None:
    """Write the metrics as JSON to `out`, and a chart of them beside it."""
    from longtake.media.charts import chunk_chart
    from longtake.media.sheets import save_sheet
    from longtake.weights.checkpoint import write_json

    title = f"{metrics['model']}, {metrics['size']}, {metrics['steps']} steps, window {metrics['window']}"
    notes = [
        f"{metrics['fps']} frames/s, first frames {metrics['first_frames_s']} s warm, {metrics['cold_start_s']} s cold",
        f"{metrics['device']}, {metrics['precision']}, torch {metrics['torch']}, peak {metrics['peak_mib']} MiB",
    ]
    save_sheet(chunk_chart(chunks, real_time_s, title, notes), out.with_suffix(".png"))
    write_json(out, metrics)


def _opened(
    name: str,
    size: str | None,
    steps: int | None,
    window: int | None,
    device: str | None,
    codec: CodecName | None,
    *,
    fp8: bool,
    compiled: bool,
) -> "Studio":
    """Open the studio to be timed: a model that is here if `codec` is None, else a preset with random weights."""
    from dataclasses import replace

    from longtake.sample.model import Model, open_model
    from longtake.studio.studio import Studio
    from longtake.weights.presets import preset_named, random_nets
    from longtake.weights.wan.presets import TAEW

    wanted = None if size is None else parsed_size(size)
    if codec is None:
        model = open_model(name, device=device, size=wanted, fp8=fp8)
    else:
        preset = preset_named(name)
        if preset.codec.kind == "wan" and codec is CodecName.LIGHT:
            preset = replace(preset, codec=TAEW)
        if window is not None:
            preset = replace(preset, stream=replace(preset.stream, window=window))
        model = Model.of(random_nets(preset, device=device, size=wanted, fp8=fp8))
    if compiled:
        model.compile()
    own = replace(model.preset, student=model.preset.student.with_steps(steps))
    if window is not None:
        own = replace(own, stream=replace(own.stream, window=window))
    return Studio(replace(model, preset=own), size=wanted)

"""`longtake generate`: generates a video from a prompt, in a file that can be watched while it grows."""

from pathlib import Path
from typing import Annotated

import typer

from longtake.cli.directing import Device, LoraOption, Recording, Scale, TakeRequest, parsed_size
from longtake.core.errors import InputError


def generate(
    prompt: Annotated[
        str | None,
        typer.Argument(help='What is seen. ", then " inside it changes the take half-way. Not needed with --script.'),
    ] = None,
    *,
    then: Annotated[
        list[str] | None,
        typer.Option(
            "--then", metavar="CUE", help='A change at a time: "4s: it starts to snow". Give as many as you like.'
        ),
    ] = None,
    script: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Prompts and their times from a subtitle file (.vtt, .srt)."),
    ] = None,
    image: Annotated[Path | None, typer.Option(metavar="FILE", help="A picture to begin with; it moves.")] = None,
    video: Annotated[Path | None, typer.Option(metavar="FILE", help="A clip to go on from; it stands first.")] = None,
    audio: Annotated[Path | None, typer.Option(metavar="FILE", help="Sound for the file: wav, mp3, ...")] = None,
    save_script: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the script that makes this take again, bit for bit.")
    ] = None,
    seconds: Annotated[float, typer.Option(metavar="S", help="How long the take lasts.")] = 10.0,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed and prompts give the same take.")] = 0,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Width and height in pixels; the model's own if not given.")
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="A preset (longtake models lists them) or a folder.")
    ] = "tiny-world",
    device: Device = None,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Where to: .mp4, .gif, .webp, or .png for a contact sheet.")
    ] = Path("take.mp4"),
    scale: Scale = 1,
    lora: LoraOption = None,
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="Denoising steps a chunk; the model's own if not given.")
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(metavar="W", help="How far towards the prompt, 0 to 20; 1, the student's own, is the fastest."),
    ] = None,
    negative_prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What guidance leads away from; needs --guidance other than 1.")
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
    opening = TakeRequest(prompt=prompt, then=tuple(then or ()), script=script, image=image, video=video)
    cues = opening.cues(seconds)
    settings = {"steps": steps, "guidance": guidance, "negative_prompt": negative_prompt}
    _check(seed=seed, **settings)
    if teacher and (guidance is not None or negative_prompt is not None):
        raise InputError("the teacher has the guidance of its preset; leave out --guidance and --negative-prompt")
    if teacher and (image or video or save_script):
        raise InputError("the teacher makes whole clips of a prompt; leave out --teacher to direct a take")
    job = Recording(
        out=out,
        audio=audio,
        save_script=save_script,
        json_lines=json_lines,
        chunk_log=chunk_log,
        device=device,
        scale=scale,
        lora=lora or (),
    )
    job.check(model)
    wanted = None if size is None else parsed_size(size)
    if teacher:
        job.record_teacher(model, cues, seconds=seconds, seed=seed, size=wanted, steps=steps)
        return
    with job.open(model, wanted) as studio:
        take, first = opening.take(studio, cues, seed=seed, **settings)
        job.record(take, cues, seconds=seconds, first=first)


def _check(**settings: object) -> None:
    """Raise InputError if a setting is out of range, before torch is imported."""
    from longtake.core.cue import Cue, input_errors

    with input_errors():
        Cue.model_validate(settings)

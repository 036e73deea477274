"""`longtake animate`, `extend`, `restyle`, `replay`: takes from a picture, a clip or a script."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from longtake.cli.directing import Device, LoraOption, Recording, Scale, TakeRequest, parsed_size
from longtake.core.errors import InputError
from longtake.sample.cues import TimedPrompt, cues_from


class Fit(StrEnum):
    """How a picture of another aspect ratio is resized."""

    CROP = "crop"
    FIT = "fit"


Prompt = Annotated[str, typer.Argument(help='What happens. ", then " inside it changes the take half-way.')]
Then = Annotated[
    list[str] | None,
    typer.Option("--then", metavar="CUE", help='A change at a time: "4s: it starts to snow". As many as you like.'),
]
Seconds = Annotated[float, typer.Option(metavar="S", help="How long the new part lasts.")]
Seed = Annotated[int, typer.Option(metavar="N", help="The same seed and prompts give the same take.")]
FitOption = Annotated[
    Fit, typer.Option(metavar="crop|fit", help="crop fills the frame, fit shows all between black bars.")
]
Size = Annotated[str | None, typer.Option(metavar="WxH", help="Width and height; the model's own if not given.")]
Model = Annotated[str, typer.Option(metavar="NAME", help="A preset (longtake models lists them) or a folder.")]
Out = Annotated[Path, typer.Option(metavar="FILE", help="Where to: .mp4, .gif, .webp, or .png for a contact sheet.")]
Audio = Annotated[Path | None, typer.Option(metavar="FILE", help="Sound for the file: wav, mp3, ...")]
SaveScript = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write the script that makes this take again, bit for bit.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout, for machines.")]
ChunkLog = Annotated[bool, typer.Option("--chunk-log", help="Print a line for every chunk.")]


def animate(
    image: Annotated[Path, typer.Argument(help="A picture: png, jpg, webp, ...")],
    prompt: Prompt,
    *,
    then: Then = None,
    seconds: Seconds = 5.0,
    seed: Seed = 0,
    fit: FitOption = Fit.CROP,
    size: Size = None,
    model: Model = "tiny-world",
    device: Device = None,
    out: Out = Path("animated.mp4"),
    scale: Scale = 1,
    lora: LoraOption = None,
    audio: Audio = None,
    save_script: SaveScript = None,
    json_lines: Json = False,
    chunk_log: ChunkLog = False,
) -> None:
    """Make a picture move. It is the first frame; the prompt says what happens."""
    opening = TakeRequest(prompt=prompt, then=tuple(then or ()), image=image)
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
    _begin(opening, job, seconds=seconds, seed=seed, fit=fit, size=size, model=model)


def extend(
    video: Annotated[Path, typer.Argument(help="A clip: mp4, webm, mov, ...")],
    prompt: Prompt,
    *,
    then: Then = None,
    seconds: Seconds = 5.0,
    seed: Seed = 0,
    fit: FitOption = Fit.CROP,
    size: Size = None,
    model: Model = "tiny-world",
    device: Device = None,
    out: Out = Path("extended.mp4"),
    scale: Scale = 1,
    lora: LoraOption = None,
    audio: Audio = None,
    save_script: SaveScript = None,
    json_lines: Json = False,
    chunk_log: ChunkLog = False,
) -> None:
    """Go on where a clip ends. The file holds the clip and what follows."""
    opening = TakeRequest(prompt=prompt, then=tuple(then or ()), video=video)
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
    _begin(opening, job, seconds=seconds, seed=seed, fit=fit, size=size, model=model)


def _begin(
    opening: TakeRequest, job: Recording, *, seconds: float, seed: int, fit: Fit, size: str | None, model: str
) -> None:
    """Record a take that begins with a picture or a clip."""
    cues = opening.cues(seconds)
    job.check(model)
    with job.open(model, None if size is None else parsed_size(size)) as studio:
        take, first = opening.take(studio, cues, seed=seed, fit=fit.value)
        job.record(take, cues, seconds=seconds, first=first)


def restyle(
    video: Annotated[Path, typer.Argument(help="A clip: mp4, webm, mov, ...")],
    prompt: Annotated[str, typer.Argument(help="What it becomes.")],
    *,
    then: Then = None,
    strength: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Above 0 (the clip's look as it is) up to 1 (nothing of it is left); as suits the model if not given.",
        ),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(metavar="S", help="At most so long; the whole clip if not given.")
    ] = None,
    seed: Seed = 0,
    fit: FitOption = Fit.CROP,
    size: Size = None,
    model: Model = "tiny-world",
    device: Device = None,
    out: Out = Path("restyled.mp4"),
    scale: Scale = 1,
    lora: LoraOption = None,
    audio: Audio = None,
    json_lines: Json = False,
    chunk_log: ChunkLog = False,
) -> None:
    """Restyle a clip by a prompt, frame for frame, while it is read."""
    cues = cues_from(prompt, tuple(then or ()), 1e9 if seconds is None else seconds)
    if seconds is None and len(cues) > 1 + len(then or ()):
        raise InputError('", then " needs --seconds to know where half-way is; or use --then with times')
    job = Recording(
        out=out, audio=audio, json_lines=json_lines, chunk_log=chunk_log, device=device, scale=scale, lora=lora or ()
    )
    job.check(model)
    with job.open(model, None if size is None else parsed_size(size)) as studio:
        take = studio.restyle(video, cues[0].prompt, strength=strength, seed=seed, fit=fit.value)
        for cue in cues[1:]:
            take.cue(prompt=cue.prompt, at_s=cue.at_s)
        job.record(take, cues, seconds=seconds)


def replay(
    script: Annotated[Path, typer.Argument(help="A take's script (.json).")],
    *,
    seconds: Annotated[
        float | None, typer.Option(metavar="S", help="How long; as long as the script's take if not given.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="A preset or a folder; the one the script names if not given.")
    ] = None,
    device: Device = None,
    out: Out = Path("replayed.mp4"),
    scale: Scale = 1,
    lora: LoraOption = None,
    audio: Audio = None,
    json_lines: Json = False,
    chunk_log: ChunkLog = False,
) -> None:
    """Make a take again from its script, bit for bit."""
    from longtake.studio.script import Script

    read = Script.load(script)
    if not read.chunks and seconds is None:
        raise InputError(f"{script} does not say how many chunks; give --seconds")
    job = Recording(
        out=out, audio=audio, json_lines=json_lines, chunk_log=chunk_log, device=device, scale=scale, lora=lora or ()
    )
    job.check(model)
    with job.open(model or read.model or "tiny-world", None if read.size is None else parsed_size(read.size)) as studio:
        take = studio.replay(read)
        job.record(take, [TimedPrompt(at_s=0.0, prompt=read.opening.prompt)], seconds=seconds)

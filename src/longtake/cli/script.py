"""`longtake script`: checks scripts of takes, and prints their schema."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from longtake.studio.subtitles import SUFFIXES, read_subtitles

script = typer.Typer(help="Check scripts of takes, and print their schema.", no_args_is_help=True)


@script.command()
def check(file: Annotated[Path, typer.Argument(help="A take's script (.json), or subtitles (.vtt, .srt).")]) -> None:
    """Say what a script holds, or what is wrong with it. Nothing is generated."""
    if file.suffix.lower() in SUFFIXES:
        for cue in read_subtitles(file):
            sys.stdout.write(f"{cue.at_s:8.2f} s  {cue.prompt}\n")
        return
    from longtake.studio.script import Script

    read = Script.load(file)
    begins = " (begins with pictures)" if read.opening.given else ""
    sys.stdout.write(f"{read.model or 'any model'} {read.size or ''} {read.chunks} chunks{begins}\n")
    sys.stdout.write(f"opening      {read.opening.prompt}\n")
    for cue in read.cues:
        when = "next chunk" if cue.chunk is None and cue.at_s is None else ""
        when = when or (f"chunk {cue.chunk}" if cue.chunk is not None else f"{cue.at_s:.2f} s")
        what = cue.model_dump(exclude_none=True, exclude={"chunk", "at_s", "given"}, exclude_defaults=True)
        picture = ", a picture" if cue.given else ""
        sys.stdout.write(f"{when:<12} {', '.join(f'{k} {v}' for k, v in what.items())}{picture}\n")


@script.command()
def schema() -> None:
    """Print the JSON Schema of scripts."""
    from longtake.studio.script import Script

    sys.stdout.write(json.dumps(Script.model_json_schema(), indent=2) + "\n")

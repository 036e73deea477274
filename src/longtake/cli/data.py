"""`longtake data`: prepares the user's own videos for training."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from longtake.core.errors import InputError

data = typer.Typer(help="Make your own videos ready to train on.", no_args_is_help=True)

SHOWN = 10


class FitName(StrEnum):
    """How pictures of another aspect ratio are resized."""

    CROP = "crop"
    FIT = "fit"


@data.command()
def prepare(
    folder: Annotated[
        Path, typer.Argument(help="Videos, each with a .txt or .json beside it, or captions.csv (file,caption[,at_s]).")
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="For the clips; what is there is not made again.")],
    model: Annotated[str, typer.Option(metavar="NAME", help="For which the clips are: its codec, size and rate.")] = (
        "tiny-world"
    ),
    device: Annotated[str, typer.Option(metavar="NAME", help="Of the codec: cpu, cuda, cuda:1.")] = "cpu",
    fit: Annotated[
        FitName, typer.Option(metavar="crop|fit", help="Cut what stands out, or show all between bars.")
    ] = FitName.CROP,
) -> None:
    """Cut videos into clips and encode them, with their captions. Files that cannot be used are named and left out.

    Then: longtake train RECIPE --data DIR
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder")
    from longtake.cli.progress import Bars
    from longtake.train.videos import SKIPPED
    from longtake.train.videos import prepare as prepare_all

    with Bars() as bars:
        made = prepare_all(folder, out, model, bars.update, device=device, fit=fit.value)
    sys.stdout.write(f"{made.clips} clips of {made.videos} videos in {out}\n")
    for name, why in list(made.skipped.items())[:SHOWN]:
        sys.stderr.write(f"left out: {name}: {why}\n")
    if len(made.skipped) > SHOWN:
        sys.stderr.write(f"and {len(made.skipped) - SHOWN} more, all in {out / SKIPPED}\n")
    if not made.clips:
        raise typer.Exit(2)

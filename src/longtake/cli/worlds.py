"""`longtake worlds`: the rendered, captioned scenes that the default model learns from."""

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longtake.core.errors import InputError

if TYPE_CHECKING:
    from longtake.worlds.scenes import WorldConfig

worlds = typer.Typer(help="Look at the rendered training scenes, or render many of them.", rich_markup_mode=None)


class World(StrEnum):
    """Size of the world: how many places and subjects there are."""

    SMALL = "small"
    FULL = "full"


class Looks(StrEnum):
    """How scenes are drawn: as a camera sees them, flat as a basic game engine does, or one under the other."""

    FULL = "full"
    PLAIN = "plain"
    BOTH = "both"


class SplitName(StrEnum):
    """Scenes for training, or held-out scenes with pairs that training never shows."""

    TRAIN = "train"
    HELD_OUT = "held_out"


WorldOption = Annotated[World, typer.Option(metavar="small|full", help="How many places and subjects there are.")]
SplitOption = Annotated[
    SplitName, typer.Option(metavar="train|held_out", help="Scenes to train on, or pairs never trained on.")
]


@worlds.command()
def preview(
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to; a .png.")] = Path("worlds.png"),
    num: Annotated[int, typer.Option(metavar="N", help="How many scenes.")] = 8,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the first scene.")] = 0,
    world: WorldOption = World.SMALL,
    look: Annotated[
        Looks, typer.Option(metavar="full|plain|both", help="As a camera sees it, flat as in a basic game, or both.")
    ] = Looks.FULL,
    split: SplitOption = SplitName.TRAIN,
) -> None:
    """Write a contact sheet of rendered scenes with their captions."""
    if not 1 <= num <= 64:
        raise InputError(f"num must lie between 1 and 64, got {num}")
    if out.suffix.lower() != ".png":
        raise InputError(f'a contact sheet is a .png, got "{out.name}"')

    from longtake.media.sheets import Row, contact_sheet, save_sheet
    from longtake.media.targets import check_target
    from longtake.worlds.captions import captions_for
    from longtake.worlds.render import render as pictures_of
    from longtake.worlds.sampling import sample_scene

    check_target(out)
    config = _config(world)
    rows: list[Row] = []
    for scene_seed in range(seed, seed + num):
        scene = sample_scene(config, scene_seed, split.value)
        captions = captions_for(scene, scene_seed)
        changes = [f"(chunk {idx}) {text}" for idx, text in enumerate(captions) if idx and text != captions[idx - 1]]
        caption, label = "  ".join([captions[0], *changes]), f"#{scene_seed}"
        if look is not Looks.PLAIN:
            rows.append(Row(pictures=pictures_of([scene])[0], caption=caption, label=label))
        if look is not Looks.FULL:
            told = caption if look is Looks.PLAIN else ""
            rows.append(Row(pictures=pictures_of([scene], "plain")[0], caption=told, label=f"{label} plain"))
    save_sheet(contact_sheet(rows, columns=6), out)
    sys.stdout.write(f"{out} · {num} scenes\n")


@worlds.command()
def render(
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the clips; a folder begun before is completed.")],
    clips: Annotated[int, typer.Option(metavar="N", help="How many clips the folder shall hold.")],
    seed: Annotated[int, typer.Option(metavar="N", help="Of the first clip.")] = 0,
    world: WorldOption = World.SMALL,
    split: SplitOption = SplitName.TRAIN,
) -> None:
    """Render clips with their captions into a folder."""
    if clips < 1:
        raise InputError(f"clips must be at least 1, got {clips}")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; name a folder")

    from longtake.cli.progress import Bars
    from longtake.worlds.shards import write_shards

    started = time.perf_counter()
    there = sum(len(path.read_text().splitlines()) for path in out.glob("*.jsonl"))
    rate = 0.0

    def tell(done: int, wanted: int) -> None:
        nonlocal rate
        rate = max(0, done - there) / (time.perf_counter() - started)
        bars.update("render", done, wanted, {"clips/s": rate})

    try:
        with Bars() as bars:
            write_shards(_config(world), out, clips, seed, split.value, progress=tell)
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error}") from error
    except KeyboardInterrupt:
        sys.stderr.write(f"interrupted; {out} keeps what is whole, run the same command to go on\n")
        raise typer.Exit(130) from None
    sys.stdout.write(f"{out} · {clips} clips · {rate:.1f} clips/s in this run\n")


def _config(world: World) -> "WorldConfig":
    from longtake.worlds.scenes import WorldConfig

    return WorldConfig.small() if world is World.SMALL else WorldConfig.full()

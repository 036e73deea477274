"""The `longtake` command: registers the subcommands, and converts errors to one line and an exit code.

Exit codes: 0 done, 2 a mistake that the message explains, 130 interrupted.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from longtake.cli import show_notice
from longtake.cli.bench import bench
from longtake.cli.data import data
from longtake.cli.evaluate import evaluate
from longtake.cli.fleet import fleet
from longtake.cli.generate import generate
from longtake.cli.models import models
from longtake.cli.play import play
from longtake.cli.prefer import prefer
from longtake.cli.script import script
from longtake.cli.serve import keys, serve
from longtake.cli.takes import animate, extend, replay, restyle
from longtake.cli.train import train
from longtake.cli.vbench import vbench
from longtake.cli.worlds import worlds
from longtake.core.errors import LongtakeError
from longtake.core.version import __version__

EXIT_MISTAKE = 2
COMPLETION = "_LONGTAKE_COMPLETE"
EXIT_INTERRUPTED = 130

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
app.command()(generate)
app.command()(animate)
app.command()(extend)
app.command()(restyle)
app.command()(replay)
app.command()(play)
app.add_typer(script, name="script")
app.add_typer(models, name="models")
app.add_typer(worlds, name="worlds")
app.command()(train)
app.add_typer(data, name="data")
app.command()(bench)
app.command()(evaluate)
app.add_typer(vbench, name="vbench")
app.command()(prefer)
app.command()(serve)
app.add_typer(keys, name="keys")
app.add_typer(fleet, name="fleet")


def _version(asked: bool | None) -> None:
    if asked:
        sys.stdout.write(f"longtake {__version__}\n")
        raise typer.Exit


@app.callback()
def longtake(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error, too.")] = False,
    version: Annotated[
        bool | None, typer.Option("--version", is_eager=True, callback=_version, help="Print the version and exit.")
    ] = None,
) -> None:
    """Streaming video generation: the first frames are there before the rest is made."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (without the program's name) and return its exit code.

    A LongtakeError or a wrong flag is one line on stderr and exit code 2; `longtake --debug ...` adds the traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    debug = False
    command = get_command(app)
    if COMPLETION in os.environ:  # a shell asks for the ends of a word
        command.main(args=words, prog_name="longtake")
    try:
        with command.make_context("longtake", words) as context:
            debug = bool(context.params.get("debug"))
            command.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    except typer.TyperException as mistake:
        return _complain(mistake.format_message())
    except LongtakeError as mistake:
        if debug:
            traceback.print_exc()
        return _complain(str(mistake))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing was saved\n")
        return EXIT_INTERRUPTED
    return 0


def _complain(message: str) -> int:
    show_notice("")
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return EXIT_MISTAKE

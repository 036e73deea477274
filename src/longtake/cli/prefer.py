"""`longtake prefer`: blind comparison of videos, and the strengths of models estimated from the votes."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from longtake.core.errors import InputError


def prefer(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME=FOLDER ...",
            help="Names of models with folders of their videos; files of equal names have equal prompts.",
        ),
    ] = None,
    *,
    votes: Annotated[
        Path, typer.Option(metavar="FILE", help="Where votes are kept; they go on where they stopped.")
    ] = (Path("out/votes.jsonl")),
    results: Annotated[bool, typer.Option("--results", help="Say what the votes mean so far, as JSON.")] = False,
    port: Annotated[int, typer.Option(metavar="N", help="0 takes any that is free.", min=0, max=65535)] = 8010,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the order and the sides.")] = 0,
) -> None:
    """Compare two models blindly: videos of the same prompt side by side, votes on disk.

    Bradley-Terry strengths with 95 % intervals come with --results. The page is for this machine alone.
    """
    from longtake.evals.preferences import Ballot, pairs_of, read_votes, strengths

    if results:
        found = strengths(read_votes(votes))
        sys.stdout.write(json.dumps({name: asdict(one) for name, one in found.items()}) + "\n")
        return
    folders = dict(_named(word) for word in models or [])
    ballot = Ballot(pairs_of(folders, seed), votes)

    from longtake.cli.serve import check_installed

    check_installed()
    import uvicorn

    from longtake.serve.prefer import create_app

    config = uvicorn.Config(create_app(ballot, folders), host="127.0.0.1", port=port, log_level="warning")
    socket = config.bind_socket()
    sys.stderr.write(f"{len(ballot.pairs)} pairs on http://127.0.0.1:{socket.getsockname()[1]}; Ctrl-C ends it\n")
    uvicorn.Server(config).run([socket])


def _named(word: str) -> tuple[str, Path]:
    name, equals, folder = word.partition("=")
    if not (name and equals and Path(folder).is_dir()):
        raise InputError(f"{word} names no folder of videos; write NAME=FOLDER")
    return name, Path(folder)

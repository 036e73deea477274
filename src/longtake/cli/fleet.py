"""`longtake fleet`: the workers of a running server."""

import sys
from typing import Annotated, Any

import typer

from longtake.core.errors import InputError

fleet = typer.Typer(help="Workers of a running server.", no_args_is_help=True)

Server = Annotated[str, typer.Option(metavar="URL", help="Address of the server.", envvar="LONGTAKE_SERVER")]
Key = Annotated[
    str | None,
    typer.Option(metavar="KEY", help='A key with the scope "admin", where keys are asked for.', envvar="LONGTAKE_KEY"),
]

HERE = "http://127.0.0.1:8000"
DRAIN_S = 600.0


@fleet.command()
def status(*, server: Server = HERE, key: Key = None) -> None:
    """Which workers there are, and what they have to do."""
    for worker in asked(server, key, "GET", "")["workers"]:
        free_gb = worker["free_bytes"] / 1e9
        sys.stdout.write(
            f"{worker['name']}  {worker['state']} · {worker['node']} · {worker['device']} · "
            f"{worker['sessions']} takes and videos · {free_gb:.1f} GB free\n"
        )


@fleet.command()
def drain(
    name: Annotated[str, typer.Argument(help="Of a worker, or of a node: all its workers.")],
    *,
    server: Server = HERE,
    key: Key = None,
) -> None:
    """Move takes and videos to other workers, and end these, so that a machine can be switched off."""
    drained = asked(server, key, "POST", "/drain", {"name": name})["drained"]
    sys.stdout.write(f"drained: {', '.join(drained)}\n")


def asked(server: str, key: str | None, method: str, path: str, body: object = None) -> Any:
    """Answer of a server's fleet routes.

    Raises:
        InputError: the server cannot be reached, or refuses.
    """
    try:
        import httpx
    except ImportError as error:
        raise InputError('this needs httpx; install it with: pip install "longtake[client]"') from error
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    try:
        answer = httpx.request(method, f"{server}/api/fleet{path}", json=body, headers=headers, timeout=DRAIN_S)
    except httpx.HTTPError as error:
        raise InputError(f"no server answers at {server}: {error}") from error
    if answer.is_error:
        raise InputError(f"the server refuses: {answer.json()['error']['message']}")
    return answer.json()

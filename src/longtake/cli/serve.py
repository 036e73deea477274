"""`longtake serve`: the server of the studio page and the API; `longtake keys`: its keys."""

import os
import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from longtake.cli.directing import Compiled, Fp8, LoraOption, parsed_loras
from longtake.core.errors import InputError

if TYPE_CHECKING:
    from longtake.serve.store import Store

Folder = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="For takes, videos and uploads; one in the user's data, if not given."),
]

NEEDED = ("fastapi", "uvicorn", "sqlalchemy", "alembic", "prometheus_client", "multipart")


def serve(
    *,
    model: Annotated[str, typer.Option(metavar="NAME", help="A preset or a folder.")] = "tiny-world",
    device: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="cpu, cuda:1; several are workers on Ray. If not given, the first GPU."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="On Ray, a GPU or a share of the cores each.", min=1)
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Of a Ray cluster to join; auto starts Ray on this machine."),
    ] = None,
    fp8: Fp8 = False,
    compiled: Compiled = False,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="To listen on; others than this machine need it.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", help="0 takes any that is free.", min=0, max=65535)] = 8000,
    folder: Folder = None,
    names: Annotated[
        list[str] | None, typer.Option("--name", metavar="NAME", help="By which browsers know this server.")
    ] = None,
    root_path: Annotated[
        str,
        typer.Option(metavar="PATH", help="Under which a proxy publishes the server (/studio); it removes it."),
    ] = "",
    ask_keys: Annotated[
        bool | None,
        typer.Option(
            "--keys/--no-keys", help="Ask for a key; by default where there is one, or others can reach the server."
        ),
    ] = None,
    lora: LoraOption = None,
    max_takes: Annotated[
        int, typer.Option(metavar="N", help="Live takes at the same time, on each device.", min=1)
    ] = 2,
    max_waiting: Annotated[int, typer.Option(metavar="N", help="Live takes that may wait for it.", min=0)] = 16,
    max_batch: Annotated[int, typer.Option(metavar="N", help="Takes whose chunks are made together.", min=1)] = 4,
    keep_takes: Annotated[
        int | None, typer.Option(metavar="N", help="Ended takes and videos that are kept; the oldest go first.", min=0)
    ] = None,
    keep_gb: Annotated[float | None, typer.Option(metavar="GB", help="And their size on disk.", min=0)] = None,
    keep_days: Annotated[float | None, typer.Option(metavar="N", help="And their age.", min=0)] = None,
    log: Annotated[
        Literal["text", "json", "errors"],
        typer.Option(help="Lines on standard error: one a request, as text or JSON, or errors only."),
    ] = "text",
) -> None:
    """Serve the studio to browsers, and an API that video clients already speak."""
    check_installed()
    if ray is not None or workers is not None or len(device or ()) > 1:
        check_fleet(device or (), workers)
    leave_a_core()
    import uvicorn

    from longtake.serve.app import ServerSettings, create_app
    from longtake.serve.connections import server_config
    from longtake.serve.guard import AccessPolicy
    from longtake.serve.logs import log_to_stderr
    from longtake.serve.retention import Retention
    from longtake.serve.schedule import DeviceLimits

    loopback = host in ("127.0.0.1", "::1", "localhost")
    # A server with a name is reached through a proxy, whose requests come from this machine.
    needed = bool(names) or not loopback or bool(store(folder).all_keys())
    asks = needed if ask_keys is None else ask_keys
    access = AccessPolicy(names=names or [], loopback_only=loopback, keys_required=asks)
    settings = ServerSettings(
        folder=kept(folder),
        model=model,
        devices=device or [None],
        fp8=fp8,
        compiled=compiled,
        loras=parsed_loras(lora or ()),
        access=access,
        retention=Retention(takes=keep_takes, gb=keep_gb, days=keep_days),
        limits=DeviceLimits(takes=max_takes, waiting=max_waiting, batch=max_batch),
        ray=ray,
        workers=workers,
    )
    app = create_app(settings)
    if access.keys_required and not app.state.store.all_keys():
        raise InputError(
            'others can reach this server, so a key is needed: make one with "longtake keys create NAME", '
            "or let everyone direct with --no-keys"
        )
    log_to_stderr(log)
    config = server_config(app, host, port, checked_root(root_path))
    socket = config.bind_socket()
    sys.stderr.write(f"longtake studio on http://{host}:{socket.getsockname()[1]}\n")
    uvicorn.Server(config).run([socket])


def checked_root(path: str) -> str:
    """Return a root path without the slash at its end.

    Raises:
        InputError: it does not begin with a slash, or is more than a path.
    """
    if path and not re.fullmatch(r"(/[\w.~-]+)*/?", path):
        raise InputError(f'--root-path is a path as in "/studio", not "{path}"')
    return path.rstrip("/")


keys = typer.Typer(help="Keys of a server that others can reach.", no_args_is_help=True)


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose it is.")],
    *,
    scope: Annotated[
        Literal["watch", "direct", "create", "admin"],
        typer.Option(help="What it may: watch takes, direct them, open them, or see those of all keys."),
    ] = "create",
    takes: Annotated[int, typer.Option(metavar="N", help="In the making at the same time.")] = 2,
    requests_per_minute: Annotated[int, typer.Option(metavar="N")] = 600,
    folder: Folder = None,
) -> None:
    """Make a key. It is shown once and kept only as a hash."""
    row, text = store(folder).create_key(name, scope=scope, takes=takes, requests_per_minute=requests_per_minute)
    sys.stdout.write(f"{text}\n")
    sys.stderr.write(f"key {row.id} for {name}; the studio's page takes it as http://.../#key={text}\n")


@keys.command(name="list")
def listed(*, folder: Folder = None) -> None:
    """Which keys there are."""
    for row in store(folder).all_keys():
        state = "" if row.revoked_at is None else " · revoked"
        limits = f"{row.takes} takes, {row.requests_per_minute} requests/min"
        sys.stdout.write(f"{row.id}  {row.name} · {row.scope} · {limits}{state}\n")


@keys.command()
def revoke(key: Annotated[str, typer.Argument(help="Its id, as `list` shows it.")], *, folder: Folder = None) -> None:
    """Refuse a key from now on."""
    store(folder).revoke_key(key)
    sys.stdout.write(f"{key} is revoked\n")


def check_installed() -> None:
    """Check that the packages for serving are installed.

    Raises:
        InputError: a package is missing.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise InputError(f'serving needs {", ".join(missing)}; install them with: pip install "longtake[serve]"')


def check_fleet(devices: Sequence[str], workers: int | None) -> None:
    """Check that several workers can be started.

    Raises:
        InputError: Ray is missing, or the number of workers is not that of the devices.
    """
    from longtake.cli.cluster import check_ray

    check_ray()
    if devices and workers not in (None, len(devices)):
        raise InputError(f"--workers {workers} does not fit {len(devices)} times --device; leave one of them out")


def leave_a_core() -> None:
    """Leave a core to sockets and H.264: a thread that waits for a core delays all threads of a chunk.

    OMP_NUM_THREADS takes precedence. Measured in docs/experiments.md, 2026-11-23, "Threads of a server".
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() - 1))


def kept(folder: Path | None) -> Path:
    """The server's folder; by default, one in the user's data."""
    from platformdirs import user_data_path

    return folder or user_data_path("longtake") / "serve"


def store(folder: Path | None) -> "Store":
    """Open the database of a server."""
    check_installed()
    from longtake.serve.store import DATABASE, Store

    return Store(kept(folder) / DATABASE)

"""A server with numbered frames, and a browser: Debian's Chromium, or what LONGTAKE_CHROMIUM names."""

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from longtake.serve.app import ServerSettings, create_app
from longtake.serve.guard import AccessPolicy
from longtake.serve.schedule import DeviceLimits
from tests.browser.barcode import PRESET_WITH_ROOM, barcoded_studio
from tests.serve.serving import listening
from tests.tiny import write_model

PATIENCE_S = 20.0
CHROMIUM = os.environ.get("LONGTAKE_CHROMIUM", "/usr/bin/chromium")
BUFFER = 4096  # bytes on their way over a slow wire
FAR = "studio.test"  # this machine by a name that no browser takes for it
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required"),
    *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream=device-count=2"),
    f"--host-resolver-rules=MAP {FAR} 127.0.0.1",
)


class Wire:
    """A way to the server that can be cut, and slow: a proxy on a port of its own."""

    def __init__(self, port: int, bytes_per_s: float | None = None) -> None:
        self._target = port
        self._bytes_per_s = bytes_per_s  # from the server; None: as fast as it can
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.open = True
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Carry nothing more."""
        self._listener.close()
        self.cut()

    def cut(self, seconds: float = 0.0) -> None:
        """Break all connections, and refuse new ones for a while."""
        self.open = False
        for pair in self._pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self._pairs.clear()
        time.sleep(seconds)
        self.open = True

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            if not self.open:
                here.close()
                continue
            there = socket.socket()
            if self._bytes_per_s is not None:  # or the system would hold seconds of video
                there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
                here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
            there.connect(("127.0.0.1", self._target))
            self._pairs.append((here, there))
            threading.Thread(target=self._carry, args=(here, there), daemon=True).start()

    def _carry(self, here: socket.socket, there: socket.socket) -> None:
        with here, there, suppress(OSError, ValueError):
            while True:
                for end in select.select([here, there], [], [])[0]:
                    data = end.recv(65536 if self._bytes_per_s is None else BUFFER)
                    if not data:
                        return
                    (there if end is here else here).sendall(data)
                    if self._bytes_per_s is not None and end is there:
                        time.sleep(len(data) / self._bytes_per_s)


def wait(page: Any, condition: str, arg: Any = None) -> None:
    """Until a condition holds. Playwright's own way needs `eval`, which the page's policy forbids."""
    until = time.monotonic() + PATIENCE_S
    while not page.evaluate(condition, arg):
        if time.monotonic() > until:
            raise TimeoutError(f"not in {PATIENCE_S} s: {condition}")
        page.wait_for_timeout(30)


@pytest.fixture(scope="session")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    model = write_model(tmp_path_factory.mktemp("model"), preset=PRESET_WITH_ROOM)
    settings = ServerSettings(
        folder=tmp_path_factory.mktemp("kept"),
        model=str(model),
        limits=DeviceLimits(takes=8),
        access=AccessPolicy(names=(FAR,)),
    )
    with listening(create_app(settings, opener=barcoded_studio)) as base:
        yield int(base.rsplit(":", 1)[1])


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a window."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=1000 * PATIENCE_S)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    if not Path(CHROMIUM).exists():
        pytest.skip(f"there is no browser at {CHROMIUM}")
    with chromium() as opened:
        yield opened


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open an address in a context of its own. An error on the page's console fails the test."""
    contexts, errors = [], []

    def open_page(url: str, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * PATIENCE_S)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.goto(url)
        return page

    open_page.errors = errors  # type: ignore[attr-defined]
    yield open_page
    for context in contexts:
        context.close()
    cut = ("net::ERR_", "WebSocket connection to", "Failed to fetch")
    far = ("Cross-Origin-Opener-Policy header has been ignored",)  # what browsers say of any address without https
    assert [error for error in errors if not any(text in error for text in cut + far)] == []

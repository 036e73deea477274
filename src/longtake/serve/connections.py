"""TCP connections of the server: limits on what a client may leave unsent or unread."""

import asyncio
import socket
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_HEADER_BYTES = 64 * 1024
REQUEST_S = 20.0  # longest wait for the end of a header, and for the next part of a body
UNREAD_S = 60.0  # longest wait of data for a client that does not read


class LimitedConnection(H11Protocol):
    """An HTTP/1.1 connection that is closed when the client stops in the middle of a request, or does not read.

    A connection between two requests is closed by uvicorn (`timeout_keep_alive`). The limit for unread data is that of
    the socket (Linux: TCP_USER_TIMEOUT), so it holds for WebSockets too.
    """

    _late: asyncio.TimerHandle | None = None  # closes the connection, while the rest of a request is due

    def connection_made(self, transport: Any) -> None:  # uvloop's transports are not asyncio's
        super().connection_made(transport)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(UNREAD_S * 1000))
        self._expect_rest()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        their_state = self.conn.their_state
        if their_state is not h11.IDLE:  # the header is complete; parts of a body may follow
            self._expect_nothing()
        if their_state in (h11.IDLE, h11.SEND_BODY):
            self._expect_rest()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        super().connection_lost(exc)

    def _expect_rest(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(REQUEST_S, self._give_up)

    def _expect_nothing(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        if self.flow.read_paused:  # the server has not taken what came
            self._expect_rest()
        else:
            self.transport.abort()


def path_of(scope: Scope) -> str:
    """Path of a request below the root path, with which the server completes what a proxy has removed."""
    return scope["path"].removeprefix(scope.get("root_path", ""))


def server_config(app: FastAPI, host: str = "127.0.0.1", port: int = 0, root_path: str = "") -> uvicorn.Config:
    """Configuration of uvicorn for an app. h11 is the parser that limits headers.

    Args:
        app: the application.
        host: address to listen on.
        port: port to listen on; 0: any that is free.
        root_path: path under which a proxy publishes the server, "/studio" say; the proxy removes it from requests.
    """
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        root_path=root_path,
        http=LimitedConnection,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        log_config=None,  # see `logs`
        log_level="warning",
        ws_max_size=4 * 1024**2,
        ws_ping_interval=20,
        ws_per_message_deflate=False,  # video is compressed already
        timeout_graceful_shutdown=3,  # streaming responses do not end by themselves
    )

"""Checks on every request before it reaches a route: host name, origin, size, key, rate limit.

Pure ASGI, so that WebSockets are checked too. Nothing here is specific to one route.
"""

import base64
import binascii
import ipaddress
import logging
import re
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from anyio import to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as ConnectionScope

from longtake.core.errors import InputError, LongtakeError
from longtake.serve.connections import path_of
from longtake.serve.errors import ForbiddenError, RateLimitError, TooLargeError, UnauthorizedError, problem
from longtake.serve.metrics import Metrics
from longtake.serve.store import KeyRow, Scope, Store

MiB = 1024**2
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
READING = frozenset({"GET", "HEAD", "OPTIONS"})
KEYED = ("/v1/", "/api/", "/metrics")
HOST = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")
DIRECTING = re.compile(r"/api/takes/[^/]+/commands")
# addresses that <img>, <video> and links load without headers; the ids in them cannot be guessed
UNKEYED = re.compile(r"/api/(about|assets/[^/]+|takes/[^/]+/(chunks|paths)/[^/]+)")
BODY_BYTES = (("/v1/videos", 210 * MiB), ("/api/assets", 210 * MiB), ("/", MiB))  # the first matching prefix counts
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "connect-src 'self' ws://{host} wss://{host}; "
        "object-src 'none'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}

access = logging.getLogger("longtake.access")
logger = logging.getLogger("longtake.serve")


@dataclass(frozen=True, kw_only=True)
class AccessPolicy:
    """Host names that the server accepts, and whether it requires keys.

    Other names are refused, so that a web page cannot reach the server through a name of its own that it resolves to
    this machine (DNS rebinding). A server that is not limited to the loopback also accepts IP addresses.
    """

    names: Collection[str] = ()  # names of this server, besides those of the loopback
    loopback_only: bool = True
    keys_required: bool = False

    def allows_host(self, host: str) -> bool:
        """Whether `host`, a Host header, is a name of the server."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in LOOPBACK_NAMES or name in self.names:
            return True
        return not self.loopback_only and _is_address(name)


class Guard:
    """The outermost middleware: `app.add_middleware(Guard, access=..., store=..., metrics=...)`."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        access: AccessPolicy,
        store: Store,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._access = access
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # key id -> requests left, and the time of that count

    async def __call__(self, scope: ConnectionScope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: ConnectionScope, receive: Receive, send: Send) -> None:
        request_id = _numbered(scope)
        begun_s, limit = self._clock(), _body_limit(path_of(scope))
        received, too_large, status = 0, False, 0

        reads_head, host = scope["method"] == "HEAD", _host_of(scope)
        if reads_head:  # HEAD gets the headers that GET would get
            scope = {**scope, "method": "GET"}  # a copy: the server must know that no body follows

        async def limited_receive() -> Message:
            nonlocal received, too_large
            if reads_head and status:  # ends answers that stream
                return {"type": "http.disconnect"}
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                too_large = True
                raise _too_large(limit)
            return message

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in (*HEADERS.items(), ("X-Request-Id", request_id)):
                    headers.setdefault(name, value.replace("{host}", host))
            if not reads_head:
                await send(message)
            elif message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b""})

        async def send_unless_rejected(message: Message) -> None:
            # the application's response to a truncated body would hide the real error
            if not too_large:
                await send_with_headers(message)

        error: Exception | None = None
        try:
            await self._check(scope)
            await self._app(scope, limited_receive, send_unless_rejected)
            if too_large:
                error = _too_large(limit)
        except Exception as raised:  # noqa: BLE001  (logged below, and never shown)
            error = raised
        if error is not None:
            response = problem(error, request_id=request_id)
            if response.status_code == 500:
                logger.error("request %s failed", request_id, exc_info=error)
            if isinstance(error, TooLargeError):
                response.headers["Connection"] = "close"  # otherwise the rest of the body would still be read
            if status == 0:
                await response(scope, receive, send_with_headers)
        self._record(scope, status, begun_s)

    async def _websocket(self, scope: ConnectionScope, receive: Receive, send: Send) -> None:
        request_id = _numbered(scope)
        begun_s = self._clock()
        try:
            await self._check(scope)
        except LongtakeError as error:
            response = problem(error, request_id=request_id)
            await _deny(response, scope, receive, send)
            self._record(scope, response.status_code, begun_s)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._record(scope, 101, begun_s)

    async def _check(self, scope: ConnectionScope) -> None:
        """Check a request, and put its key into the scope's state.

        Raises:
            LongtakeError: the request is refused.
        """
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._access.allows_host(host):
            raise InputError("the server is not known under the name in the Host header; see its setting for hosts")
        writes = scope["type"] == "websocket" or scope["method"] not in READING
        if writes and origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise ForbiddenError("this comes from a page of another site")
        path = path_of(scope)
        if int(headers.get("content-length", "0")) > (limit := _body_limit(path)):
            raise _too_large(limit)
        reads = scope["type"] == "http" and scope["method"] in READING
        if not self._access.keys_required or not path.startswith(KEYED) or (reads and UNKEYED.fullmatch(path)):
            return
        text = _key_text(scope, headers)
        key = None if text is None else await to_thread.run_sync(self._store.check_key, text)
        if key is None:
            raise UnauthorizedError(
                "a key is needed: Authorization: Bearer <key>" if text is None else "the key is not known"
            )
        if not key.allows(needed := _needed_scope(scope, path)):
            raise ForbiddenError(f'this key may {key.scope}; this needs a key with the scope "{needed}"')
        self._spend(key)
        scope["state"]["key"] = key

    def _spend(self, key: KeyRow) -> None:
        """Take a token from the key's bucket, which refills at the rate `requests_per_minute`.

        Raises:
            RateLimitError: the bucket is empty.
        """
        now, per_second = self._clock(), key.requests_per_minute / 60
        left, then = self._buckets.get(key.id, (float(key.requests_per_minute), now))
        left = min(float(key.requests_per_minute), left + (now - then) * per_second)
        if left < 1:
            wait_s = max(1, round((1 - left) / per_second + 0.5))
            raise RateLimitError(f"the key may make {key.requests_per_minute} requests a minute; wait", wait_s)
        self._buckets[key.id] = (left - 1, now)

    def _record(self, scope: ConnectionScope, status: int, begun_s: float) -> None:
        # the route's template: ids in the address grant access, so they must not be logged
        route = getattr(scope.get("route"), "path", None) or "other"
        method = scope.get("method", "WS")
        key: KeyRow | None = scope["state"].get("key")
        self._metrics.answered(method, route, status)
        line = {
            "request_id": scope["state"]["request_id"],
            "method": method,
            "route": route,
            "status": status,
            "ms": round((self._clock() - begun_s) * 1000, 1),
            "client": (scope.get("client") or ("",))[0],
            "key": None if key is None else key.id,
        }
        access.info("%(request_id)s %(client)s %(method)s %(route)s %(status)s %(ms)s ms", line)


def _needed_scope(scope: ConnectionScope, path: str) -> Scope:
    """Scope that a request needs. A WebSocket needs "watch"; its commands are checked one by one."""
    if path == "/metrics" or path.startswith("/api/fleet"):
        return "admin"
    if scope["type"] == "websocket" or scope["method"] in READING:
        return "watch"
    return "direct" if DIRECTING.fullmatch(path) else "create"


def key_of(connection: HTTPConnection) -> KeyRow | None:
    """Return the key of a request; None where no key is required."""
    return getattr(connection.state, "key", None)


def owner_of(connection: HTTPConnection) -> str | None:
    """Return the id of the key whose takes and videos a request sees; None: those of all keys."""
    key = key_of(connection)
    return None if key is None or key.allows("admin") else key.id


def _numbered(scope: ConnectionScope) -> str:
    request_id = f"req_{secrets.token_hex(8)}"
    # a copy: servers may share one state among all requests
    scope["state"] = {**scope.get("state", {}), "request_id": request_id}
    return request_id


def _host_of(scope: ConnectionScope) -> str:
    """The Host header, if it is one that can stand in another header."""
    host = Headers(scope=scope).get("host", "")
    return host if HOST.fullmatch(host) else "localhost"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _body_limit(path: str) -> int:
    return next(limit for prefix, limit in BODY_BYTES if path.startswith(prefix))


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"at most {limit // MiB} MiB are taken here")


def _key_text(scope: ConnectionScope, headers: Headers) -> str | None:
    """Read the key from the header, or from a WebSocket's subprotocols, since browsers cannot set headers there."""
    kind, _, text = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return text.strip()
    for protocol in scope.get("subprotocols", ()):
        if protocol.startswith("key."):
            encoded = protocol.removeprefix("key.")
            try:
                return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
            except (binascii.Error, UnicodeDecodeError):
                return ""
    return None


async def _deny(response: Response, scope: ConnectionScope, receive: Receive, send: Send) -> None:
    """Refuse a WebSocket handshake, with an HTTP response if the server supports it."""
    if "websocket.http.response" in scope.get("extensions", {}):
        await response(scope, receive, send)
        return
    denial: dict[str, Any] = {"type": "websocket.close", "code": 1008, "reason": "refused"}
    await receive()  # websocket.connect
    await send(denial)

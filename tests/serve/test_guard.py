"""Who gets in."""

import base64
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI, Request, WebSocket
from pydantic import BaseModel
from starlette.testclient import TestClient, WebSocketDenialResponse

from longtake.core.errors import InputError, MediaError
from longtake.serve.errors import HANDLERS, BusyError, ConflictError, UnsupportedError
from longtake.serve.guard import AccessPolicy, Guard, MiB, key_of
from longtake.serve.logs import LogStyle, log_to_stderr
from longtake.serve.metrics import Metrics
from longtake.serve.store import SCOPES, Store
from tests.serve.serving import listening


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Words(BaseModel):
    prompt: str


ERRORS: dict[str, Exception] = {
    "input": InputError("say it otherwise"),
    "busy": BusyError("come back later"),
    "conflict": ConflictError("not yet"),
    "unsupported": UnsupportedError("never"),
    "disk": MediaError("cannot write /secret/place: no space left on device"),
    "bug": ZeroDivisionError("/secret/place"),
}


def app_with(store: Store, access: AccessPolicy, clock: Clock | None = None) -> FastAPI:
    app = FastAPI(exception_handlers=HANDLERS)
    app.state.metrics = Metrics()
    app.add_middleware(Guard, access=access, store=store, metrics=app.state.metrics, clock=clock or Clock())

    @app.get("/")
    def page() -> str:
        return "page"

    @app.get("/api/takes/{take}/chunks/{chunk}.jpg")
    @app.get("/api/takes/{take}")
    def take(request: Request) -> dict[str, str | None]:
        key = key_of(request)
        return {"key": None if key is None else key.name}

    @app.post("/api/takes")
    @app.post("/v1/videos")
    async def echo(request: Request) -> int:
        return len(await request.body())

    @app.post("/api/words")
    @app.post("/v1/words")
    def words(words: Words) -> str:
        return words.prompt

    @app.get("/fail/{how}")
    def fail(how: str) -> None:
        raise ERRORS[how]

    @app.websocket("/api/takes/{take}/live")
    async def live(websocket: WebSocket) -> None:
        await websocket.accept(subprotocol="longtake.v2")
        key = key_of(websocket)
        await websocket.send_text("nobody" if key is None else key.name)
        await websocket.close()

    return app


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store.db")
    yield store
    store.close()


@pytest.fixture
def client(store: Store) -> Iterator[TestClient]:
    with TestClient(app_with(store, AccessPolicy(names=("testserver",)))) as client:
        yield client


def said(answer: Any) -> str:  # of httpx or httpx2, whichever the test client uses
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error["message"]


def test_every_answer_has_an_id_and_headers_that_shut_the_door(client: TestClient) -> None:
    for answer in (client.get("/"), client.get("/none"), client.get("/", headers={"Host": "evil.example"})):
        assert answer.headers["x-request-id"].startswith("req_")
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers
    assert client.get("/").headers["x-request-id"] != client.get("/").headers["x-request-id"]


@pytest.mark.parametrize(
    ("host", "loopback_only", "known"),
    [
        ("localhost:8000", True, True),
        ("127.0.0.1", True, True),
        ("[::1]:8000", True, True),
        ("studio.example", True, True),
        ("evil.example", True, False),
        ("localhost.evil.example", True, False),
        ("192.168.1.7:8000", True, False),
        ("192.168.1.7:8000", False, True),
        ("evil.example", False, False),
        ("", True, False),
        ("[", True, False),
    ],
)
def test_only_known_names_lead_here(host: str, loopback_only: bool, known: bool) -> None:
    assert AccessPolicy(names=("studio.example",), loopback_only=loopback_only).allows_host(host) is known


@pytest.mark.parametrize(
    ("origin", "status"), [(None, 200), ("http://testserver", 200), ("http://evil.example", 403), ("null", 403)]
)
def test_other_sites_cannot_write(client: TestClient, origin: str | None, status: int) -> None:
    headers = {} if origin is None else {"Origin": origin}
    assert client.post("/api/takes", content=b"x", headers=headers).status_code == status
    assert client.get("/", headers=headers).status_code == 200
    if status == 200:
        with client.websocket_connect("/api/takes/a/live", headers=headers) as socket:
            assert socket.receive_text() == "nobody"
        return
    with (
        pytest.raises(WebSocketDenialResponse) as denied,
        client.websocket_connect("/api/takes/a/live", headers=headers),
    ):
        pass
    assert denied.value.status_code == 403
    assert "another site" in said(denied.value)


def test_keys_are_asked_for_where_something_is_done(store: Store) -> None:
    row, text = store.create_key("laptop")
    bearer = {"Authorization": f"Bearer {text}"}
    encoded = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    with TestClient(app_with(store, AccessPolicy(names=("testserver",), keys_required=True))) as client:
        assert client.get("/").status_code == 200
        assert client.get("/api/takes/a/chunks/1.jpg").status_code == 200
        for headers in ({}, {"Authorization": "Bearer lt_no_no"}, {"Authorization": text}):
            answer = client.get("/api/takes/a", headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert "key" in said(answer)
        assert client.post("/api/takes/a/chunks/1.jpg").status_code == 401
        assert client.get("/api/takes/a", headers=bearer).json() == {"key": "laptop"}
        with client.websocket_connect("/api/takes/a/live", ["longtake.v2", f"key.{encoded}"]) as socket:
            assert socket.accepted_subprotocol == "longtake.v2"
            assert socket.receive_text() == "laptop"
        for protocols in (["longtake.v2"], ["longtake.v2", "key.%%%"], ["longtake.v2", "key.bm8"]):
            with (
                pytest.raises(WebSocketDenialResponse) as denied,
                client.websocket_connect("/api/takes/a/live", protocols),
            ):
                pass
            assert denied.value.status_code == 401
        store.revoke_key(row.id)
        assert client.get("/api/takes/a", headers=bearer).status_code == 401


def test_a_key_does_what_its_scope_allows_and_no_more(store: Store) -> None:
    access = AccessPolicy(names=("testserver",), keys_required=True)
    requests = (
        ("GET", "/api/takes/a", "watch"),
        ("HEAD", "/api/takes/a", "watch"),
        ("POST", "/api/takes/a/commands", "direct"),
        ("POST", "/api/takes/a/chunks/1/takes", "create"),
        ("POST", "/api/takes", "create"),
        ("DELETE", "/api/takes/a", "create"),
        ("POST", "/api/assets", "create"),
        ("POST", "/v1/videos", "create"),
        ("GET", "/metrics", "admin"),
    )
    with TestClient(app_with(store, access)) as client:
        for i, scope in enumerate(SCOPES):
            headers = {"Authorization": f"Bearer {store.create_key(scope, scope=scope)[1]}"}
            for method, path, needed in requests:
                answer = client.request(method, path, headers=headers)
                assert (answer.status_code != 403) == (i >= SCOPES.index(needed)), (scope, method, path)
                if answer.status_code == 403 and method != "HEAD":
                    assert f'"{needed}"' in said(answer)


def test_a_key_may_ask_so_often_and_then_waits(store: Store) -> None:
    clock = Clock()
    _, text = store.create_key("laptop", requests_per_minute=6)
    _, other = store.create_key("desk", requests_per_minute=6)
    access = AccessPolicy(names=("testserver",), keys_required=True)
    with TestClient(app_with(store, access, clock), headers={"Authorization": f"Bearer {text}"}) as client:
        statuses = [client.get("/api/takes/a").status_code for _ in range(7)]
        assert statuses == [200] * 6 + [429]
        answer = client.get("/api/takes/a")
        assert answer.json()["error"]["code"] == "rate_limit_exceeded"
        assert int(answer.headers["retry-after"]) == 10
        assert client.get("/api/takes/a", headers={"Authorization": f"Bearer {other}"}).status_code == 200
        clock.now += 10
        assert [client.get("/api/takes/a").status_code for _ in range(2)] == [200, 429]
        clock.now += 3600
        assert [client.get("/api/takes/a").status_code for _ in range(7)] == [200] * 6 + [429]


def test_bodies_are_limited_by_where_they_go(client: TestClient) -> None:
    for kind in (bytes, lambda data: iter([data])):  # with a length, and without
        answer = client.post("/api/takes", content=kind(bytes(MiB + 1)))
        assert answer.status_code == 413
        assert "at most 1 MiB" in said(answer)
        assert client.post("/v1/videos", content=kind(bytes(2 * MiB))).json() == 2 * MiB


def test_a_body_without_end_is_cut_off(store: Store) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65536
            yield bytes(65536)

    async def attempt(url: str) -> httpx.Response:
        async with httpx.AsyncClient() as client:
            return await client.post(f"{url}/api/takes", content=endless())

    closed_early = suppress(httpx.TransportError)  # before all is sent, so that the answer may be lost
    with listening(app_with(store, AccessPolicy())) as url, closed_early:
        assert anyio.run(attempt, url).status_code == 413
    assert sent < 64 * MiB


@pytest.mark.parametrize(
    ("how", "status", "message", "code"),
    [
        ("input", 400, "say it otherwise", "invalid_value"),
        ("busy", 503, "come back later", "busy"),
        ("conflict", 409, "not yet", "conflict"),
        ("unsupported", 501, "never", "not_supported"),
        ("disk", 500, "went wrong on the server", "internal_error"),
        ("bug", 500, "went wrong on the server", "internal_error"),
    ],
)
def test_errors_have_one_form_and_no_insides(
    client: TestClient, how: str, status: int, message: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = client.get(f"/fail/{how}")
    assert answer.status_code == status
    assert message in said(answer)
    assert answer.json()["error"]["code"] == code
    assert "secret" not in answer.text
    if status == 500:
        request_id = answer.headers["x-request-id"]
        assert request_id in said(answer)
        assert request_id in caplog.text
    if status == 503:
        assert int(answer.headers["retry-after"]) > 0


def test_messages_that_do_not_fit_say_where(client: TestClient) -> None:
    for path, status in (("/v1/words", 400), ("/api/words", 422)):
        answer = client.post(path, json={"prompt": 7})
        assert answer.status_code == status
        assert answer.json()["error"]["param"] == "prompt"


def test_the_log_tells_routes_and_no_secrets(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "longtake.access"):
        client.get("/api/takes/very-secret?key=lt_a_b", headers={"Authorization": "Bearer lt_c_d"})
        client.get("/nowhere/very-secret")
        with client.websocket_connect("/api/takes/very-secret/live") as socket:
            socket.receive_text()
    lines: list[Any] = [record.args for record in caplog.records if record.name == "longtake.access"]
    assert [(line["method"], line["route"], line["status"]) for line in lines] == [
        ("GET", "/api/takes/{take}", 200),
        ("GET", "other", 404),
        ("WS", "/api/takes/{take}/live", 101),
    ]
    assert not any(word in caplog.text for word in ("very-secret", "lt_a_b", "lt_c_d"))


@pytest.fixture
def _logging_as_before() -> Iterator[None]:
    root, access = logging.getLogger(), logging.getLogger("longtake.access")
    handlers, levels = root.handlers[:], (root.level, access.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    access.setLevel(levels[1])


@pytest.mark.usefixtures("_logging_as_before")
@pytest.mark.parametrize("style", ["text", "json", "errors"])
def test_the_log_has_the_id_that_the_answer_has(
    client: TestClient, capfd: pytest.CaptureFixture[str], style: LogStyle
) -> None:
    log_to_stderr(style)
    ids = [client.get("/api/takes/t").headers["x-request-id"] for _ in range(2)]
    logging.getLogger("longtake.serve").error("it failed", exc_info=ValueError("why"))
    lines = capfd.readouterr().err.splitlines()
    if style == "json":
        written = [json.loads(line) for line in lines]
        assert [line.get("request_id") for line in written] == [*ids, None]
        assert (written[0]["status"], written[0]["route"]) == (200, "/api/takes/{take}")
        assert "ValueError: why" in written[2]["exception"]
    else:
        told = [next((one for one in ids if one in line), None) for line in lines if " INFO " in line]
        assert told == ([] if style == "errors" else ids)
        assert any("ERROR it failed" in line for line in lines)

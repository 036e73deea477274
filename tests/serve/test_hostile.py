"""What one client can do to the others: nothing that takes longer than a second."""

import asyncio
import os
import socket
import threading
import time
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import av
import httpx
import numpy as np
import pytest
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from PIL import Image

from longtake.core.errors import InputError, MediaError
from longtake.core.shapes import PictureSize
from longtake.media.clips import stream_video
from longtake.serve import connections, takes
from longtake.serve.app import MAX_EXPORTS, ServerSettings, create_app
from longtake.serve.connections import MAX_HEADER_BYTES
from longtake.serve.lock import FolderLock
from tests.serve.serving import listening
from tests.tiny import write_model

HERE = "http://localhost"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ServerSettings:
    folder = tmp_path_factory.mktemp("kept")
    return ServerSettings(folder=folder, model=str(write_model(tmp_path_factory.mktemp("model"))))


def connected(url: str) -> socket.socket:
    """Open a connection to a server, to send it what no HTTP client would send."""
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=5)


def flood(to: socket.socket, most: int) -> int:
    """Send a header for as long as the server takes it; the bytes that were sent."""
    to.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ")
    sent = 0
    try:
        while sent < most:
            sent += to.send(b"a" * 65536)
    except OSError:  # closed by the server
        pass
    return sent


def test_a_header_without_end_is_cut_off_while_others_are_answered(settings: ServerSettings) -> None:
    with listening(create_app(settings)) as url:
        with connected(url) as hostile:
            assert flood(hostile, 100 * MAX_HEADER_BYTES) < 100 * MAX_HEADER_BYTES
        begun = time.monotonic()
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert time.monotonic() - begun < 1


def closed_within(to: socket.socket, seconds: float) -> bool:
    """Whether the server closes a connection."""
    to.settimeout(seconds)
    try:
        return to.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /healthz HTTP/1.1\r\nHost: loc",
        b"POST /api/takes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{",
    ],
    ids=["nothing", "half a header", "half a body"],
)
def test_a_request_that_does_not_end_is_closed(
    settings: ServerSettings, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connections, "REQUEST_S", 0.6)
    with listening(create_app(settings)) as url, connected(url) as slow:
        slow.sendall(sent)
        assert not closed_within(slow, 0.3)
        assert closed_within(slow, 2)


def test_a_request_that_comes_slowly_is_answered(settings: ServerSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part of a body has its own time, and answering has no limit."""
    monkeypatch.setattr(connections, "REQUEST_S", 0.6)
    body = b'{"prompt": "a tiger"}'
    with listening(create_app(settings)) as url, connected(url) as slow:
        head = "POST /api/takes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        slow.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        for part in (body[:5], body[5:10], body[10:15], body[15:]):
            time.sleep(0.3)
            slow.sendall(part)
        assert slow.recv(12) == b"HTTP/1.1 201"


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the limit is one of Linux")
def test_a_client_that_does_not_read_is_dropped(settings: ServerSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "UNREAD_S", 1.0)
    app, ended = create_app(settings), threading.Event()

    @app.get("/endless")
    def endless() -> StreamingResponse:
        async def blocks() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield bytes(1 << 20)
                    await asyncio.sleep(0)
            finally:
                ended.set()

        return StreamingResponse(blocks())

    with listening(app) as url, connected(url) as silent:
        silent.sendall(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert ended.wait(20)


def test_exports_leave_threads_to_commands(settings: ServerSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    going, most, lock, release = 0, 0, threading.Lock(), threading.Event()
    right = takes._exported

    def slow(*given: object) -> Path:
        nonlocal going, most
        with lock:
            going += 1
            most = max(most, going)
        release.wait(10)
        with lock:
            going -= 1
        return right(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(takes, "_exported", slow)
    with listening(create_app(settings)) as url, httpx.Client(base_url=url, timeout=30) as client:
        take = client.post("/api/takes", json={"prompt": "a tiger"}).json()["id"]
        with client.stream("GET", f"/api/takes/{take}/events") as events:  # a viewer, so that a chunk is made
            next(events.iter_bytes())
            deadline = time.monotonic() + 20
            while not client.get(f"/api/takes/{take}").json()["chunks"] and time.monotonic() < deadline:
                time.sleep(0.05)
        exports = [
            threading.Thread(target=lambda: httpx.get(f"{url}/api/takes/{take}/paths/0.webp", timeout=30))
            for _ in range(60)
        ]
        for export in exports:
            export.start()
        time.sleep(0.3)
        begun = time.monotonic()
        answer = client.post(f"/api/takes/{take}/commands", json={"type": "pause"})
        assert answer.status_code == 200
        assert time.monotonic() - begun < 5, "exports last 10 s: the command did not wait for one"
        release.set()
        for export in exports:
            export.join()
    assert 1 <= most <= MAX_EXPORTS


def test_frames_that_are_never_shown_count_towards_the_deadline(tmp_path: Path) -> None:
    buffer = BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("h264", rate=100_000)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(200):  # all of them within 2 ms
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    path = tmp_path / "skip.mp4"
    path.write_bytes(buffer.getvalue())
    size = PictureSize(height=32, width=48)
    assert len(list(stream_video(path, size, 16.0))) <= 2
    with pytest.raises(MediaError, match="takes too long"):
        list(stream_video(path, size, 16.0, until_s=time.monotonic() - 1))


def test_a_second_server_on_a_folder_is_refused_and_the_first_goes_on(settings: ServerSettings) -> None:
    with TestClient(create_app(settings), base_url=HERE) as first:
        with pytest.raises(InputError, match=f"another server .process {os.getpid()}."):
            FolderLock(settings.folder)
        assert first.get("/healthz").status_code == 200
    FolderLock(settings.folder).release()


def test_head_is_get_without_a_body_even_where_the_body_never_ends(settings: ServerSettings) -> None:
    with listening(create_app(settings)) as url, httpx.Client(base_url=url, timeout=5) as client:
        take = client.post("/api/takes", json={"prompt": "a tiger"}).json()["id"]
        for path in (
            "/",
            "/healthz",
            "/api/about",
            f"/api/takes/{take}",
            f"/api/takes/{take}/events",
            "/page/state.js",
        ):
            answer = client.head(path)
            assert (answer.status_code, answer.content) == (200, b""), path
        assert client.head("/api/takes/nobody-knows-this-id").status_code == 404
        assert client.get("/healthz").content  # the connection can be used again
        assert int(client.head("/api/about").headers["content-length"]) == len(client.get("/api/about").content)


def test_pages_may_connect_to_their_own_server_only(settings: ServerSettings) -> None:
    with TestClient(create_app(settings), base_url="http://localhost:8000") as client:
        policy = client.get("/").headers["content-security-policy"]
    assert "connect-src 'self' ws://localhost:8000 wss://localhost:8000;" in policy


@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt": "a", "seed": 1' + b"0" * 5000 + b"}",
        b'{"prompt": ' + b"[" * 100_000 + b"}",
        '{"prompt": "a", "input_reference": {"image_url": "data:image/png;base64,\u00e9\u00e9\u00e9\u00e9"}}'.encode(),
        b"\xff\xfe",
    ],
)
def test_odd_json_is_the_clients_mistake(settings: ServerSettings, body: bytes) -> None:
    with TestClient(create_app(settings), base_url=HERE, raise_server_exceptions=False) as client:
        answer = client.post("/v1/videos", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


def test_a_socket_survives_odd_messages(settings: ServerSettings) -> None:
    with TestClient(create_app(settings), base_url=HERE) as client:
        take = client.post("/api/takes", json={"prompt": "a tiger"}).json()["id"]
        with client.websocket_connect(f"ws://localhost/api/takes/{take}/live") as live:
            for text in (
                '{"type": "pause", "event_id": "%s"}' % ("a" * 65),
                '{"type": "pause", "event_id": ""}',
                "[" * 99999,
            ):
                live.send_text(text)
            live.send_text('{"type": "pause", "event_id": "p"}')
            refused = 0
            while True:
                message = live.receive()
                if "text" in message and '"refused"' in message["text"]:
                    refused += 1
                    assert '"event_id":null' in message["text"]
                if "text" in message and '"event_id":"p"' in message["text"]:
                    break
    assert refused == 3


def test_folders_are_private_and_do_not_tell_ids(settings: ServerSettings) -> None:
    with TestClient(create_app(settings), base_url=HERE) as client:
        take = client.post("/api/takes", json={"prompt": "a tiger"}).json()["id"]
    assert settings.folder.stat().st_mode & 0o077 == 0
    assert take not in [path.name for path in (settings.folder / "takes").iterdir()]


def test_damaged_pictures_are_refused(settings: ServerSettings) -> None:
    rng = np.random.default_rng(0)
    with TestClient(create_app(settings), base_url=HERE, raise_server_exceptions=False) as client:
        for kind in ("PNG", "JPEG", "WEBP", "GIF"):
            buffer = BytesIO()
            Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)).save(buffer, kind)
            whole = bytearray(buffer.getvalue())
            for _ in range(60):
                damaged = bytearray(whole)
                for at in rng.integers(0, len(whole), 6):
                    damaged[at] = rng.integers(0, 256)
                answer = client.post("/api/assets", content=bytes(damaged[: rng.integers(12, len(whole) + 1)]))
                assert answer.status_code in (201, 400), answer.text

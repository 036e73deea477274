"""A hub, small: served from this process, fetched by the real client."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "someone/wan"
FILES = {"checkpoints/student.pt": b"weights" * 1000, "notes/README.md": b"words", "other.bin": b"x" * 10}
FETCH = "import sys; from longtake.weights.hub import fetch; print(fetch(sys.argv[1], sys.argv[2:]))"


class Hub(BaseHTTPRequestHandler):
    """What the client asks of a hub: the list of files, their sizes and hashes, and the files."""

    served: list[str] = []  # noqa: RUF012
    damaged = False

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        del format, args

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.split("?")[0]
        if path.startswith(f"/api/models/{REPO}/tree/"):
            entries = [
                {
                    "type": "file",
                    "path": name,
                    "size": len(data),
                    "oid": hashlib.sha1(data).hexdigest(),
                    "lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 1},
                }
                for name, data in FILES.items()
            ]
            return self._send(200, json.dumps(entries).encode(), {"Content-Type": "application/json"}, with_body=True)
        if path.startswith(f"/api/models/{REPO}"):
            siblings = [
                {
                    "rfilename": name,
                    "size": len(data),
                    "lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 1},
                }
                for name, data in FILES.items()
            ]
            body, headers = {"id": REPO, "sha": COMMIT, "siblings": siblings}, {"Content-Type": "application/json"}
            return self._send(200, json.dumps(body).encode(), headers, with_body=True)
        name = path.removeprefix(f"/{REPO}/resolve/{COMMIT}/").removeprefix(f"/{REPO}/resolve/main/")
        if name not in FILES:
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, with_body=False)
        data = FILES[name]
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
        if with_body:
            self.served.append(name)
            data = data[::-1] if self.damaged else data
        return self._send(200, data, headers, with_body=with_body)

    def _send(self, code: int, body: bytes, headers: dict[str, str], *, with_body: bool) -> None:
        self.send_response(code)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.served.clear()
    Hub.damaged = False
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def fetch(endpoint: str, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"}
    for name in ("HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY"):
        env.pop(name, None)
    return subprocess.run([sys.executable, "-c", FETCH, *words], env=env, capture_output=True, text=True, check=False)


def test_files_come_once_and_only_those_asked_for(hub: str, tmp_path: Path) -> None:
    done = fetch(hub, tmp_path, REPO, "checkpoints/*")
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert (folder / "checkpoints/student.pt").read_bytes() == FILES["checkpoints/student.pt"]
    assert Hub.served == ["checkpoints/student.pt"]
    assert fetch(hub, tmp_path, REPO, "checkpoints/*").stdout == done.stdout
    assert Hub.served == ["checkpoints/student.pt"]


def test_what_came_damaged_is_removed_and_told(hub: str, tmp_path: Path) -> None:
    Hub.damaged = True
    done = fetch(hub, tmp_path, REPO, "checkpoints/*")
    assert "checkpoints/student.pt of someone/wan came damaged" in done.stderr
    Hub.damaged = False
    assert fetch(hub, tmp_path, REPO, "checkpoints/*").returncode == 0


def test_what_is_not_there_is_told(hub: str, tmp_path: Path) -> None:
    assert "has no file that fits nothing/*" in fetch(hub, tmp_path, REPO, "nothing/*").stderr
    assert "nobody/none cannot be fetched" in fetch(hub, tmp_path, "nobody/none").stderr


def test_without_a_hub_the_advice_is_a_path(tmp_path: Path) -> None:
    done = fetch("http://127.0.0.1:9", tmp_path, REPO)
    assert "give the path of files that are here" in done.stderr

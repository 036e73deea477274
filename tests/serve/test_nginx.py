"""The recipe for nginx, run by nginx: TLS, a path of a larger site, keys, streams that are not held back."""

import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from longtake.serve.app import ServerSettings, create_app
from longtake.serve.guard import AccessPolicy
from longtake.serve.messages import ChunkEvent, events
from tests.serve.serving import listening
from tests.tiny import write_model

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
RECIPE = Path(__file__).parents[2] / "deploy" / "nginx.conf"
NAME = "studio.example"
MAIN = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    {temporary}
    include {folder}/site.conf;
}}
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(NGINX).exists(), reason="nginx is not installed"),
]


class Site:
    """A server behind nginx, with a key of it."""

    def __init__(self, port: int, key: str, tls: ssl.SSLContext) -> None:
        self.port, self.key, self.tls = port, key, tls
        self.client = httpx.Client(
            base_url=f"https://127.0.0.1:{port}", verify=tls, headers={"Host": f"{NAME}:{port}"}, timeout=30
        )
        self.known = {"Authorization": f"Bearer {key}"}


def certificate(folder: Path) -> ssl.SSLContext:
    """Make a certificate of the site and of this machine; returns what trusts it."""
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={NAME}"]
    names = ["-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1"]
    files = ["-keyout", str(folder / "site.key"), "-out", str(folder / "site.crt")]
    subprocess.run([*made, *names, *files], check=True, capture_output=True)
    return ssl.create_default_context(cafile=str(folder / "site.crt"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("nginx")
    model = write_model(tmp_path_factory.mktemp("model"))
    access = AccessPolicy(names=(NAME,), keys_required=True)
    app = create_app(ServerSettings(folder=tmp_path_factory.mktemp("kept"), model=str(model), access=access))
    key = app.state.store.create_key("a test", takes=4, requests_per_minute=10_000)[1]
    tls = certificate(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with listening(app, root_path="/studio") as base:
        text = RECIPE.read_text()
        for theirs, ours in (
            ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
            ("http://127.0.0.1:8000", base),
            (f"/etc/ssl/{NAME}.crt", str(folder / "site.crt")),
            (f"/etc/ssl/{NAME}.key", str(folder / "site.key")),
        ):
            assert theirs in text
            text = text.replace(theirs, ours)
        (folder / "site.conf").write_text(text)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
        (folder / "nginx.conf").write_text(MAIN.format(folder=folder, temporary=temporary))
        with subprocess.Popen([NGINX, "-c", str(folder / "nginx.conf")], stderr=subprocess.PIPE) as nginx:
            try:
                found = Site(port, key, tls)
                until_s = time.monotonic() + 20
                while True:
                    try:
                        assert found.client.get("/studio/healthz").status_code == 200
                        break
                    except httpx.ConnectError:
                        assert nginx.poll() is None, nginx.stderr and nginx.stderr.read()
                        assert time.monotonic() < until_s
                        time.sleep(0.05)
                yield found
                found.client.close()
            finally:
                nginx.terminate()
                nginx.wait(10)


def test_the_page_and_all_that_it_loads_lie_below_the_path(site: Site) -> None:
    moved = site.client.get("/studio")
    assert (moved.status_code, moved.headers["location"]) == (301, f"https://{NAME}:{site.port}/studio/")
    for page in ("/studio/", "/studio/docs"):
        text = site.client.get(page).text
        links = re.findall(r'(?:href|src)="([^"#:]+)"', text)
        assert len(links) > 3
        for link in links:
            found = site.client.get(httpx.URL(f"https://{NAME}{page}").join(link).path)
            assert found.status_code == 200, link
    assert site.client.get("/studio/openapi.json").json()["servers"] == [{"url": "/studio"}]
    assert site.client.get("/api/about").status_code == 404, "the rest of the site is not the server's"


def test_keys_are_asked_for_below_the_path_too(site: Site) -> None:
    opening = {"prompt": "a tiger"}
    assert site.client.get("/studio/api/takes").status_code == 401
    assert site.client.post("/studio/api/takes", json=opening).status_code == 401
    assert site.client.get("/studio/metrics").status_code == 401
    elsewhere = site.known | {"Origin": "https://elsewhere.example"}
    assert site.client.post("/studio/api/takes", json=opening, headers=elsewhere).status_code == 403
    own = site.known | {"Origin": f"https://{NAME}:{site.port}"}
    assert site.client.post("/studio/api/takes", json=opening, headers=own).status_code == 201


def test_a_take_is_directed_and_watched_through_the_proxy(site: Site) -> None:
    take = site.client.post("/studio/api/takes", json={"prompt": "a tiger", "seed": 3}, headers=site.known).json()
    url = f"wss://{NAME}:{site.port}/studio/api/takes/{take['id']}/live"
    seen: list[ChunkEvent] = []
    line = socket.create_connection(("127.0.0.1", site.port))
    with connect(url, sock=line, ssl=site.tls, additional_headers=site.known) as live:
        while not seen:
            message = live.recv(30)
            if isinstance(message, str):
                event = events.validate_json(message)
                seen += [event] if isinstance(event, ChunkEvent) else []
            elif (event := events.validate_json(message[4 : 4 + int.from_bytes(message[:4], "little")])) and isinstance(
                event, ChunkEvent
            ):
                seen.append(event)
    assert seen[0].index == 0
    with site.client.stream("GET", f"/studio/api/takes/{take['id']}/events", headers=site.known) as stream:
        first = next(stream.iter_lines())  # though the stream goes on
    assert first


def test_uploads_and_videos_pass_and_their_links_are_below_the_path(site: Site) -> None:
    refused = site.client.post("/studio/api/assets", content=b"0" * 3_000_000, headers=site.known)
    assert refused.status_code in (400, 422), "no picture: the server says so, not the proxy"
    assert "error" in refused.json()
    video = site.client.post("/studio/v1/videos", json={"prompt": "a boat", "seconds": "1"}, headers=site.known).json()
    assert video["stream_url"] == f"/studio/v1/videos/{video['id']}/content"
    assert site.client.get(video["stream_url"], headers=site.known).status_code == 200
    nothing = site.client.post("/studio/v1/videos", json={}, headers=site.known)
    assert nothing.status_code == 400, "as OpenAI answers, and not 422"

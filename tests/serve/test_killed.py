"""A server that dies in the middle of its work: what was finished is there again, what was not is made."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest

from tests.tiny import write_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning"),  # the client says so of the service
]


@contextmanager
def process(model: Path, folder: Path, *devices: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server of its own, and its address."""
    options = ["--model", str(model), "--folder", str(folder), "--port", "0"]
    options += [word for device in devices for word in ("--device", device)]
    with subprocess.Popen(
        [sys.executable, "-m", "longtake", "serve", *options], stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stderr is not None
            found = re.search(r"http://\S+", server.stderr.readline())
            assert found
            while True:
                try:
                    httpx.get(f"{found[0]}/readyz").raise_for_status()
                    break
                except httpx.HTTPError:
                    assert server.poll() is None
                    time.sleep(0.1)
            yield server, found[0]
        finally:
            server.kill()


def client_of(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0)


def test_nothing_that_was_finished_is_lost_and_the_rest_is_made(tmp_path: Path) -> None:
    model, folder = write_model(tmp_path / "model"), tmp_path / "kept"
    with process(model, folder) as (server, url), client_of(url) as client:
        done = client.videos.create_and_poll(prompt="a red boat", seconds="4", extra_body={"seed": 5})
        content = client.videos.download_content(done.id).read()
        with httpx.Client(base_url=url, timeout=30) as plain:  # a live take, of which some chunks are watched
            live = plain.post("/api/takes", json={"prompt": "a tiger", "seed": 1}).json()["id"]
            with plain.stream("GET", f"/api/takes/{live}/events") as events:
                next(events.iter_raw())
        jobs = [
            client.videos.create(prompt="a blue car", seconds="12", extra_body={"seed": seed}).id for seed in range(4)
        ]
        while client.videos.retrieve(jobs[0]).status == "queued":
            time.sleep(0.02)
        server.kill()
        server.wait()
    with process(model, folder) as (_, url), client_of(url) as client:
        assert client.videos.download_content(done.id).read() == content
        assert [client.videos.poll(job).status for job in jobs] == ["completed"] * 4
        fresh = client.videos.create_and_poll(prompt="a blue car", seconds="12", extra_body={"seed": 0})
        assert client.videos.download_content(fresh.id).read() == client.videos.download_content(jobs[0]).read()
        take = httpx.get(f"{url}/api/takes/{live}").json()
        assert take["state"] == "ended"
        for chunk in take["tree"]:
            assert httpx.get(f"{url}/api/takes/{live}/chunks/{chunk['chunk']}.frames").status_code == 200


def test_the_processes_of_its_devices_die_with_it(tmp_path: Path) -> None:
    def children() -> list[Path]:
        return [Path("/proc") / pid for pid in listing.read_text().split()]

    with process(write_model(tmp_path / "model"), tmp_path / "kept", "cpu", "cpu") as (server, _):
        listing = Path(f"/proc/{server.pid}/task/{server.pid}/children")
        found = children()
        assert len(found) >= 2
        server.kill()
        server.wait()
    until_s = time.monotonic() + 10
    while any(path.exists() for path in found):
        assert time.monotonic() < until_s
        time.sleep(0.05)

"""A server that dies in the middle of its work: what was finished is there again, what was not is made."""

import json
import re
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from websockets.sync.client import ClientConnection, connect

import longtake
from longtake.media.live import ChunkEncoder
from longtake.studio.script import Script
from tests.tiny import write_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning"),  # the client says so of the service
]


@contextmanager
def process(model: Path, folder: Path, *devices: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server of its own, and its address."""
    options = ["--model", str(model), "--folder", str(folder), "--port", "0", "--max-batch", "1"]
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
        assert take["state"] == "idle"  # it goes on when somebody comes back
        for chunk in take["tree"]:
            assert httpx.get(f"{url}/api/takes/{live}/chunks/{chunk['chunk']}.frames").status_code == 200


def test_a_take_on_workers_goes_on_when_its_server_comes_back_and_the_workers_die_with_the_server(
    tmp_path: Path,
) -> None:
    model, folder = write_model(tmp_path / "model"), tmp_path / "kept"
    with process(model, folder, "cpu", "cpu") as (server, url):
        workers = httpx.get(f"{url}/api/fleet").json()["workers"]
        assert [worker["state"] for worker in workers] == ["ready", "ready"]
        take = httpx.post(f"{url}/api/takes", json={"prompt": "a tiger", "seed": 1}).json()["id"]
        with connected(url, take, -1) as (socket, before):
            followed(socket, before, 3)
            socket.send(json.dumps({"type": "cue", "change": "night falls", "at": 9}))
            followed(socket, before, 4)
            server.kill()
            server.wait()
        until_s = time.monotonic() + 60
        while any(Path(f"/proc/{worker['pid']}").exists() for worker in workers):
            assert time.monotonic() < until_s
            time.sleep(0.05)
    with process(model, folder, "cpu", "cpu") as (_, url):
        assert httpx.get(f"{url}/api/takes/{take}").json()["state"] == "idle"
        with connected(url, take, before[-1]["n"]) as (socket, after):
            followed(socket, after, 12)
            socket.send(json.dumps({"type": "close"}))
            followed(socket, after, None)
        entries = [*before, *after]
        script = Script.model_validate(httpx.get(f"{url}/api/takes/{take}/paths/12.json").json())
        shown = [chunk_of(httpx.get(f"{url}/api/takes/{take}/chunks/{k}.frames").content) for k in range(13)]
    assert [entry["n"] for entry in entries] == list(range(len(entries)))
    frames = [entry["frame"] for entry in entries if entry["type"] == "frame"]
    assert frames == list(range(len(frames)))
    assert [entry["type"] for entry in entries].count("applied") == 1
    assert len(script.rebuilt) == 1
    with longtake.open(str(model)) as studio:
        encoder = ChunkEncoder(studio.size, studio.fps)
        for chunk, data in zip(studio.replay(script).stream(), shown, strict=True):
            if chunk.index in script.rebuilt:
                encoder = ChunkEncoder(studio.size, studio.fps)  # that of the second process
            assert list(encoder.encode(chunk.frames)) == data


@contextmanager
def connected(url: str, take: str, after: int) -> Iterator[tuple[ClientConnection, list[dict[str, Any]]]]:
    """A viewer's connection, and the entries that come on it."""
    with connect(f"{url.replace('http', 'ws')}/api/takes/{take}/live?after={after}", max_size=None) as socket:
        yield socket, []


def followed(socket: ClientConnection, entries: list[dict[str, Any]], chunk: int | None) -> None:
    """Show chunks until the last frame of one has come; None: until the end."""
    due: dict[int, int] = {e["chunk"]: e["num_frames"] for e in entries if e["type"] == "chunk"}
    while True:
        message = socket.recv(timeout=60)
        if isinstance(message, bytes):
            message = message[4 : 4 + struct.unpack_from("<I", message)[0]]
        event = json.loads(message)
        if "n" not in event:
            continue
        entries.append(event)
        if event["type"] == "chunk":
            due[event["chunk"]] = event["num_frames"]
        if event["type"] == "ended":
            return
        if event["type"] == "frame" and event["k"] + 1 == due[event["chunk"]]:
            socket.send(json.dumps({"type": "seen", "chunk": event["chunk"]}))
            if event["chunk"] == chunk:
                return


def chunk_of(data: bytes) -> list[bytes]:
    """The frames in the records of a chunk."""
    frames, at = [], 0
    while at < len(data):
        whole, length = struct.unpack_from("<II", data, at)
        frames.append(data[at + 8 + length : at + 4 + whole])
        at += 4 + whole
    return frames

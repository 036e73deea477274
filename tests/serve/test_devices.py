"""A server with two devices: takes are divided among them, and found again wherever they are."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from longtake.serve.app import Settings, create_app
from tests.tiny import write_model

HERE, SOCKETS = "http://127.0.0.1", "ws://127.0.0.1"
PATIENCE_S = 20.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    model = write_model(tmp_path / "model")
    return Settings(folder=tmp_path / "kept", model=str(model), devices=("cpu", "cpu"), max_takes=1)


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings), base_url=HERE) as client:
        yield client


def begun(client: TestClient, seed: int) -> str:
    return client.post("/api/takes", json={"prompt": "a tiger", "seed": seed}).json()["id"]


def state_of(client: TestClient, take: str, wanted: str) -> dict[str, Any]:
    """Wait, on a socket, until a take is in a state."""
    with client.websocket_connect(f"{SOCKETS}/api/takes/{take}/live") as socket:
        while True:
            message = socket.receive()
            if "text" in message and f'"state":"{wanted}"' in message["text"].replace(" ", ""):
                return client.get(f"/api/takes/{take}").json()


def test_each_take_has_the_device_that_was_least_busy(client: TestClient) -> None:
    hosts = client.app.state.host.hosts  # type: ignore[attr-defined]
    takes = [begun(client, seed) for seed in range(2)]
    assert sorted(next(i for i, host in enumerate(hosts) if host.has(take)) for take in takes) == [0, 1]
    for take in takes:  # each in its turn: with one device, the second would wait
        assert len(state_of(client, take, "ahead")["tree"]) == 1
    assert {one["id"] for one in client.get("/api/takes").json()["takes"]} == set(takes)
    assert client.delete(f"/api/takes/{takes[0]}").status_code == 204
    assert client.get(f"/api/takes/{takes[0]}").status_code == 404
    assert client.get(f"/api/takes/{takes[1]}").status_code == 200


def first_chunk(client: TestClient, take: str) -> bytes:
    """Wait until it is encoded: that is done after it is made."""
    until = time.monotonic() + PATIENCE_S
    while (answer := client.get(f"/api/takes/{take}/chunks/0.frames")).status_code == 409:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert answer.status_code == 200
    return answer.content


def test_two_devices_make_the_same_frames(client: TestClient) -> None:
    one, other = begun(client, 7), begun(client, 7)
    for take in (one, other):
        state_of(client, take, "ahead")
    assert first_chunk(client, one) == first_chunk(client, other)


def test_what_both_have_made_is_there_after_a_restart(settings: Settings) -> None:
    with TestClient(create_app(settings), base_url=HERE) as client:
        takes = [begun(client, seed) for seed in range(2)]
        for take in takes:
            state_of(client, take, "ahead")
    with TestClient(create_app(settings), base_url=HERE) as client:
        assert {one["id"] for one in client.get("/api/takes").json()["takes"]} == set(takes)
        assert [client.get(f"/api/takes/{take}").json()["chunks"] for take in takes] == [1, 1]

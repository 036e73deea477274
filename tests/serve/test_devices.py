"""Two devices, a process each: takes are divided among them, and one may be lost. `test_live` runs on them as well."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from longtake.core.errors import WeightsError
from longtake.serve.app import ServerSettings, create_app
from longtake.serve.devices import Devices
from longtake.serve.processes import ProcessHost
from longtake.serve.schedule import DeviceLimits
from tests.serve.serving import Watcher
from tests.tiny import write_model

HERE, SOCKETS = "http://127.0.0.1", "ws://127.0.0.1"
PATIENCE_S = 60.0

pytestmark = pytest.mark.slow  # each process takes some seconds to start


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ServerSettings:
    model = write_model(tmp_path_factory.mktemp("model"))
    folder = tmp_path_factory.mktemp("kept")
    return ServerSettings(folder=folder, model=str(model), devices=("cpu", "cpu"), limits=DeviceLimits(takes=1))


@pytest.fixture(scope="module")
def client(settings: ServerSettings) -> Iterator[TestClient]:
    with TestClient(create_app(settings), base_url=HERE) as client:
        yield client


def begun(client: TestClient, seed: int) -> str:
    return client.post("/api/takes", json={"prompt": "a tiger", "seed": seed}).json()["id"]


def answered(client: TestClient, path: str, status: int = 200) -> Any:
    """Ask until the answer has a status: chunks are encoded after they are made."""
    until_s = time.monotonic() + PATIENCE_S
    while (answer := client.get(path)).status_code != status:
        assert time.monotonic() < until_s, answer.text
        time.sleep(0.05)
    return answer


def hosts_of(client: TestClient) -> list[ProcessHost]:
    host = client.app.state.host  # type: ignore[attr-defined]
    assert isinstance(host, Devices)
    assert all(isinstance(one, ProcessHost) for one in host.hosts)
    return list(host.hosts)  # type: ignore[arg-type]


def test_each_take_has_the_device_that_was_least_busy(client: TestClient) -> None:
    hosts = hosts_of(client)
    takes = [begun(client, 7) for _ in range(2)]
    assert sorted(next(i for i, host in enumerate(hosts) if host.has(take)) for take in takes) == [0, 1]
    for take in takes:  # each in its turn: with one device, the second would wait
        with client.websocket_connect(f"{SOCKETS}/api/takes/{take}/live") as socket:
            Watcher(socket).until("status", state="buffered")
    one, other = (answered(client, f"/api/takes/{take}/chunks/0.frames").content for take in takes)
    assert one == other
    assert {one["id"] for one in client.get("/api/takes").json()["takes"]} == set(takes)
    told = client.get("/metrics").text
    assert "longtake_chunks_made_total 2.0" in told
    assert client.delete(f"/api/takes/{takes[0]}").status_code == 204
    assert client.get(f"/api/takes/{takes[0]}").status_code == 404
    assert client.get(f"/api/takes/{takes[1]}").status_code == 200
    client.delete(f"/api/takes/{takes[1]}")


def test_who_waits_for_a_device_has_another_one_when_that_has_room(client: TestClient) -> None:
    hosts = hosts_of(client)
    _, other, third = takes = [begun(client, seed) for seed in (7, 7, 9)]
    sockets = [client.websocket_connect(f"{SOCKETS}/api/takes/{take}/live") for take in takes]
    with sockets[0] as first, sockets[1] as second, sockets[2] as last:
        for socket in (first, second):
            Watcher(socket).until("chunk")
        viewer = Watcher(last)
        viewer.until("status", state="queued", position=1)
        waits_for = next(host for host in hosts if host.has(third))
        free = first if waits_for.has(other) else second
        free.send_json({"type": "close"})  # the take on the device that it does not wait for
        viewer.whole_chunk(0)
        assert [host.has(third) for host in hosts] == [host is not waits_for for host in hosts]
        viewer.say(type="cue", change="night falls")
        applied = viewer.until("applied")
        viewer.whole_chunk(applied["chunk"])
        for socket in (second if free is first else first, last):
            socket.send_json({"type": "close"})
        viewer.until("ended")
    assert [e["n"] for e in viewer.entries] == list(range(len(viewer.entries)))
    alone = begun(client, 9)
    with client.websocket_connect(f"{SOCKETS}/api/takes/{alone}/live") as socket:
        Watcher(socket).whole_chunk(0)
    pair = [answered(client, f"/api/takes/{take}/chunks/0.frames").content for take in (third, alone)]
    assert pair[0] == pair[1]
    for take in (*takes, alone):
        assert client.delete(f"/api/takes/{take}").status_code == 204


def test_a_take_that_no_device_can_take_over_ends_and_can_be_deleted(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = hosts_of(client)
    takes = [begun(client, seed) for seed in (7, 7, 9)]
    sockets = [client.websocket_connect(f"{SOCKETS}/api/takes/{take}/live") for take in takes]
    with sockets[0] as first, sockets[1] as second, sockets[2] as last:
        for socket in (first, second):
            Watcher(socket).until("chunk")
        viewer = Watcher(last)
        viewer.until("status", state="queued")
        waits_for = next(host for host in hosts if host.has(takes[2]))
        other = next(host for host in hosts if host is not waits_for)
        call = other.call

        def broken(method: str, *args: object) -> object:
            if method == "adopt":
                raise RuntimeError("of our own")
            return call(method, *args)

        monkeypatch.setattr(other, "call", broken)
        (first if other.has(takes[0]) else second).send_json({"type": "close"})
        assert "internal error" in viewer.until("ended", why="lost")["message"]
    for take in takes:
        assert client.delete(f"/api/takes/{take}").status_code == 204
        assert client.get(f"/api/takes/{take}").status_code == 404


def test_a_mistake_is_answered_as_by_a_thread(client: TestClient) -> None:
    answer = client.post("/api/takes", json={"prompt": "a tiger", "image": "0" * 26})
    assert answer.status_code == 404, answer.text
    assert "no upload" in answer.json()["error"]["message"]


# The last one with this client: it kills one of the processes.
def test_when_a_device_is_lost_its_viewers_are_told_and_its_videos_are_made_by_another(
    client: TestClient, settings: ServerSettings, tmp_path: Path
) -> None:
    one, other = hosts_of(client)
    video = client.post("/v1/videos", json={"prompt": "a red boat", "seconds": "20", "seed": 3}).json()["id"]
    take, early = begun(client, 1), begun(client, 2)
    assert (one.has(take), other.has(take), one.has(early)) == (False, True, True)
    with client.websocket_connect(f"{SOCKETS}/api/takes/{early}/live") as socket:
        viewer = Watcher(socket)
        for chunk in range(2):
            viewer.whole_chunk(chunk)
    with client.websocket_connect(f"{SOCKETS}/api/takes/{take}/live") as socket:
        Watcher(socket).until("status", state="buffered")
        os.kill(one.pid, signal.SIGKILL)
        assert answered(client, "/readyz").json()["status"] == "ready"
    until_s = time.monotonic() + PATIENCE_S
    while client.get("/readyz").json()["stopped"] != ["cpu"]:
        assert time.monotonic() < until_s
    while client.get(f"/api/takes/{early}").json()["state"] != "ended":
        assert time.monotonic() < until_s
    later = client.post(f"/api/takes/{early}/chunks/1/takes").json()["id"]  # of the lost one: made again by the other
    assert other.has(later)
    with client.websocket_connect(f"{SOCKETS}/api/takes/{later}/live") as socket:
        assert Watcher(socket).whole_chunk(2)["parent"] == 1
    assert client.get(f"/v1/videos/{video}").json()["status"] != "failed"
    answered(client, f"/v1/videos/{video}/content?variant=thumbnail")  # it is finished
    again = client.post("/v1/videos", json={"prompt": "a red boat", "seconds": "20", "seed": 3}).json()["id"]
    answered(client, f"/v1/videos/{again}/content?variant=thumbnail")
    files = [settings.folder / "videos" / f"{name}.mp4" for name in (video, again)]
    assert files[0].read_bytes() == files[1].read_bytes()

    with client.websocket_connect(f"{SOCKETS}/api/takes/{take}/live") as socket:
        viewer = Watcher(socket)
        viewer.until("status", state="buffered")
        os.kill(other.pid, signal.SIGKILL)
        ended = viewer.until("ended", why="lost")
    assert "has stopped" in ended["message"]
    answered(client, "/readyz", 503)
    refused = client.post("/api/takes", json={"prompt": "a tiger"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "device_lost")
    assert client.get(f"/api/takes/{take}").json()["state"] == "ended"
    assert client.get(f"/api/takes/{take}/chunks/0.frames").status_code == 200

    copy = replace(settings, folder=Path(shutil.copytree(settings.folder, tmp_path / "kept")))
    with TestClient(create_app(copy), base_url=HERE) as fresh:  # started on what this one, which still runs, has kept
        assert fresh.get(f"/api/takes/{take}").json()["chunks"] >= 1
        assert fresh.get(f"/api/takes/{take}/chunks/0.frames").status_code == 200


def test_a_model_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    settings = ServerSettings(folder=tmp_path / "kept", model=str(tmp_path / "nothing"), devices=("cpu", "cpu"))
    with pytest.raises(WeightsError, match="nothing"), TestClient(create_app(settings), base_url=HERE):
        pass

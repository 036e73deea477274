"""Two workers on Ray: takes are divided among them, and go on when one is killed or drained.

`test_live` runs on two workers as well.
"""

import os
import random
import re
import signal
import time
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from fastapi.testclient import TestClient

import longtake
from longtake.core.errors import WeightsError
from longtake.media.live import ChunkEncoder
from longtake.serve.app import ServerSettings, create_app
from longtake.serve.host import SessionHost
from longtake.serve.schedule import DeviceLimits
from longtake.studio.script import Script
from tests.serve.serving import Watcher, noise
from tests.tiny import write_model

HERE, SOCKETS = "http://127.0.0.1", "ws://127.0.0.1"
PATIENCE_S = 60.0

pytestmark = pytest.mark.slow  # Ray takes some seconds to start


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ServerSettings:
    """Of a server whose takes are made alone: chunks made together differ from those of a replay by rounding."""
    model = write_model(tmp_path_factory.mktemp("model"))
    folder = tmp_path_factory.mktemp("kept")
    return ServerSettings(folder=folder, model=str(model), devices=("cpu", "cpu"), limits=DeviceLimits(batch=1))


@pytest.fixture(scope="module")
def client(settings: ServerSettings) -> Iterator[TestClient]:
    with TestClient(create_app(settings), base_url=HERE) as client:
        yield client


def host_of(client: TestClient) -> SessionHost:
    return client.app.state.host  # type: ignore[attr-defined]


def begun(client: TestClient, seed: int, **opening: Any) -> str:
    return client.post("/api/takes", json={"prompt": "a tiger", "seed": seed, **opening}).json()["id"]


def worker_of(client: TestClient, take: str) -> str:
    worker = host_of(client).session(take).worker
    assert worker is not None
    return worker.name


def answered(client: TestClient, path: str, status: int = 200) -> Any:
    """Ask until the answer has a status: chunks are encoded after they are made."""
    until_s = time.monotonic() + PATIENCE_S
    while (answer := client.get(path)).status_code != status:
        assert time.monotonic() < until_s, answer.text
        time.sleep(0.05)
    return answer


def both_ready(client: TestClient) -> None:
    """Wait until lost workers have been replaced."""
    until_s = time.monotonic() + PATIENCE_S
    while (states := client.get("/readyz").json()["workers"]) != {"w0": "ready", "w1": "ready"}:
        assert time.monotonic() < until_s, states
        time.sleep(0.05)


def kill(client: TestClient, name: str) -> None:
    worker = next(w for w in host_of(client).workers if w.name == name)
    os.kill(worker.about.pid, signal.SIGKILL)


def followed(client: TestClient, take: str, chunks: int, found: dict[str, Watcher]) -> None:
    """Watch a take on one connection until it has some chunks, with a cue on the way."""
    with client.websocket_connect(f"{SOCKETS}/api/takes/{take}/live") as socket:
        viewer = found[take] = Watcher(socket)
        for chunk in range(chunks):
            viewer.whole_chunk(chunk)
            if chunk == chunks // 2:
                viewer.say(type="cue", event_id="once", change="night falls", at=chunk + 6)
        viewer.say(type="close")
        viewer.until("ended", why="closed")


def check_whole(client: TestClient, settings: ServerSettings, take: str, viewer: Watcher, chunks: int) -> Script:
    """Check that every frame came once and in order, and that the script replays to the same bits; returns it."""
    assert [e["n"] for e in viewer.entries] == list(range(len(viewer.entries)))
    made = [e for e in viewer.entries if e["type"] == "chunk"]
    assert [e["index"] for e in made] == list(range(len(made)))
    frames = [e["frame"] for e in viewer.entries if e["type"] == "frame"]
    assert frames == list(range(len(frames)))
    assert [e["event_id"] for e in viewer.entries if e["type"] == "accepted"] == ["once"]
    assert [e["event_id"] for e in viewer.entries if e["type"] == "applied"] == ["once"]
    script = Script.model_validate(client.get(f"/api/takes/{take}/paths/{chunks - 1}.json").json())
    shown = [[viewer.frames[e["chunk"], k] for k in range(e["num_frames"])] for e in made[:chunks]]
    assert num_encoders(settings, script, shown) == 1 + len(script.rebuilt)
    return script


def num_encoders(settings: ServerSettings, script: Script, chunks: Sequence[Sequence[bytes]]) -> int:
    """Check that a script replays to chunks of H.264, bit for bit; returns how many encoders made them."""
    with longtake.open(settings.model) as studio:
        encoder, num = ChunkEncoder(studio.size, studio.fps), 1
        for chunk, shown in zip(studio.replay(script).stream(), chunks, strict=True):
            if list(encoder.encode(chunk.frames)) != list(shown):
                encoder, num = ChunkEncoder(studio.size, studio.fps), num + 1
                assert list(encoder.encode(chunk.frames)) == list(shown), chunk.index
    return num


# The first one: it starts a Ray of its own.
def test_a_model_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    settings = ServerSettings(folder=tmp_path / "kept", model=str(tmp_path / "nothing"), devices=("cpu", "cpu"))
    with pytest.raises(WeightsError, match="nothing"), TestClient(create_app(settings), base_url=HERE):
        pass


def test_each_take_has_the_worker_that_was_least_busy(client: TestClient) -> None:
    takes = [begun(client, 7) for _ in range(2)]
    assert {worker_of(client, take) for take in takes} == {"w0", "w1"}
    for take in takes:
        with client.websocket_connect(f"{SOCKETS}/api/takes/{take}/live") as socket:
            Watcher(socket).until("status", state="buffered")
    one, other = (answered(client, f"/api/takes/{take}/chunks/0.frames").content for take in takes)
    assert one == other
    assert {one["id"] for one in client.get("/api/takes").json()["takes"]} == set(takes)
    until_s = time.monotonic() + PATIENCE_S
    counted: dict[str, float] = {}
    while counted != {"w0": 1, "w1": 1}:
        assert time.monotonic() < until_s, counted
        time.sleep(0.1)  # the server runs in this process
        found = re.findall(r'longtake_takes_open{worker="(\w+)"} (\S+)', client.get("/metrics").text)
        counted = {worker: float(num) for worker, num in found}
    assert client.delete(f"/api/takes/{takes[0]}").status_code == 204
    assert client.get(f"/api/takes/{takes[0]}").status_code == 404
    assert client.get(f"/api/takes/{takes[1]}").status_code == 200
    client.delete(f"/api/takes/{takes[1]}")


def test_who_waits_for_a_worker_has_another_one_when_that_has_room(client: TestClient) -> None:
    takes = [begun(client, seed) for seed in (1, 2, 3, 4, 9)]
    sockets = [client.websocket_connect(f"{SOCKETS}/api/takes/{take}/live") for take in takes]
    with sockets[0] as one, sockets[1] as two, sockets[2] as three, sockets[3] as four, sockets[4] as last:
        holding = [one, two, three, four]
        for socket in holding:
            Watcher(socket).until("chunk")
        viewer = Watcher(last)
        viewer.until("status", state="queued", position=1)
        waits_for = worker_of(client, takes[4])
        free = next(s for s, take in zip(holding, takes, strict=False) if worker_of(client, take) != waits_for)
        free.send_json({"type": "close"})
        viewer.whole_chunk(0)
        assert worker_of(client, takes[4]) != waits_for
        for socket in (*holding, last):
            socket.send_json({"type": "close"})
        viewer.until("ended")
    assert [e["n"] for e in viewer.entries] == list(range(len(viewer.entries)))
    for take in takes:
        assert client.delete(f"/api/takes/{take}").status_code == 204


def test_uploads_travel_and_mistakes_are_answered_as_by_a_worker_in_the_process(client: TestClient) -> None:
    answer = client.post("/api/takes", json={"prompt": "a tiger", "image": "0" * 26})
    assert answer.status_code == 404, answer.text
    assert "no upload" in answer.json()["error"]["message"] or "no image" in answer.json()["error"]["message"]
    png = BytesIO()
    noise().save(png, "PNG")
    image = client.post("/api/assets", content=png.getvalue()).json()["id"]
    take = begun(client, 3, image=image)
    with client.websocket_connect(f"{SOCKETS}/api/takes/{take}/live") as socket:
        assert Watcher(socket).whole_chunk(0)["num_frames"] == 1
    refused = client.post(f"/api/takes/{take}/commands", json={"type": "cancel", "cue": 3})
    assert "cue 3 is not waiting" in refused.json()["error"]["message"]
    client.delete(f"/api/takes/{take}")


def test_takes_go_on_when_their_workers_are_killed_again_and_again(
    client: TestClient, settings: ServerSettings
) -> None:
    random.seed(0)
    chunks, takes = 60, [begun(client, seed) for seed in range(4)]
    viewers: dict[str, Watcher] = {}
    threads = [Thread(target=followed, args=(client, take, chunks, viewers)) for take in takes]
    for thread in threads:
        thread.start()
    num_killed = 0
    while any(thread.is_alive() for thread in threads) and num_killed < 3:
        both_ready(client)
        time.sleep(random.uniform(0.1, 0.6))
        kill(client, random.choice(["w0", "w1"]))
        num_killed += 1
    for thread in threads:
        thread.join(PATIENCE_S * 2)
        assert not thread.is_alive()
    rebuilt = [check_whole(client, settings, take, viewers[take], chunks).rebuilt for take in takes]
    assert any(rebuilt)
    both_ready(client)
    for take in takes:
        client.delete(f"/api/takes/{take}")


def test_a_take_that_moved_can_still_be_gone_back_in(client: TestClient, settings: ServerSettings) -> None:
    both_ready(client)
    take = begun(client, 5)
    with client.websocket_connect(f"{SOCKETS}/api/takes/{take}/live") as socket:
        viewer = Watcher(socket)
        for chunk in range(5):
            viewer.whole_chunk(chunk)
        viewer.say(type="retake", after=2, prompt="a red boat")
        branch = viewer.until("head")
        assert branch["chunk"] == 2
        first = viewer.until("chunk", branch=1)
        viewer.has_frame(first["chunk"], 11)
        kill(client, worker_of(client, take))
        after = first
        for _ in range(3):
            viewer.say(type="seen", chunk=after["chunk"])
            after = viewer.until("chunk", branch=1, index=after["index"] + 1)
            viewer.has_frame(after["chunk"], 11)
        viewer.say(type="rewind", to=1)
        viewer.until("head", branch=2)
        again = viewer.until("chunk", branch=2, parent=1)
        viewer.has_frame(again["chunk"], 11)
        latents = host_of(client).session(take).latents()
        viewer.say(type="close")
        viewer.until("ended")
    assert [e["n"] for e in viewer.entries] == list(range(len(viewer.entries)))
    with longtake.open(settings.model) as studio:
        for chunk in (after["chunk"], again["chunk"]):
            script = Script.model_validate(client.get(f"/api/takes/{take}/paths/{chunk}.json").json())
            replayed = studio.replay(script)
            for _ in replayed.stream():
                pass
            assert replayed.latents().equal(latents[chunk])
    client.delete(f"/api/takes/{take}")


def test_a_video_whose_worker_is_killed_is_the_one_that_was_never_interrupted(
    client: TestClient, settings: ServerSettings
) -> None:
    both_ready(client)
    request = {"prompt": "a red boat", "seconds": "20", "seed": 3}
    video = client.post("/v1/videos", json=request).json()["id"]
    until_s = time.monotonic() + PATIENCE_S
    while client.get(f"/v1/videos/{video}").json()["progress"] < 20:
        assert time.monotonic() < until_s
    kill(client, worker_of(client, client.app.state.store.video(video).session_id))  # type: ignore[attr-defined]
    answered(client, f"/v1/videos/{video}/content?variant=thumbnail")  # it is finished
    again = client.post("/v1/videos", json=request).json()["id"]
    answered(client, f"/v1/videos/{again}/content?variant=thumbnail")
    scripts = []
    for name, encoders in ((video, 2), (again, 1)):
        session = host_of(client).session(client.app.state.store.video(name).session_id)  # type: ignore[attr-defined]
        assert session.tip is not None
        scripts.append(session.script(session.tip))
        shown = [session.frames(event.chunk) for event in session.path(session.tip)]
        assert num_encoders(settings, scripts[-1], shown) == encoders
    assert scripts[0] == scripts[1]
    assert not scripts[0].rebuilt


# The last one with this client: a drained worker is not replaced.
def test_takes_go_on_when_their_worker_is_drained(client: TestClient, settings: ServerSettings) -> None:
    both_ready(client)
    chunks, takes = 60, [begun(client, seed) for seed in range(2)]
    viewers: dict[str, Watcher] = {}
    threads = [Thread(target=followed, args=(client, take, chunks, viewers)) for take in takes]
    for thread in threads:
        thread.start()
    until_s = time.monotonic() + PATIENCE_S
    while any(host_of(client).session(take).tip is None for take in takes):
        assert time.monotonic() < until_s
    assert client.post("/api/fleet/drain", json={"name": "nobody"}).status_code == 404
    assert client.post("/api/fleet/drain", json={"name": "w0"}).json() == {"drained": ["w0"]}
    assert client.get("/readyz").json()["workers"] == {"w0": "drained", "w1": "ready"}
    for thread in threads:
        thread.join(PATIENCE_S * 2)
        assert not thread.is_alive()
    scripts = [check_whole(client, settings, take, viewers[take], chunks) for take in takes]
    assert sorted(len(script.rebuilt) for script in scripts) == [0, 1]
    assert client.post("/api/fleet/drain", json={"name": "w1"}).status_code == 400

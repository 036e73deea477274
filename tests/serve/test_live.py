"""The live protocol, spoken to a real server with a small model of random weights."""

import struct
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from longtake.core.errors import MediaError
from longtake.core.shapes import PictureSize
from longtake.core.vocabulary import Vocabulary
from longtake.media.animations import open_writer
from longtake.media.live import pictures_of
from longtake.serve import viewers, worker
from longtake.serve.app import ServerSettings, create_app
from longtake.serve.guard import AccessPolicy
from longtake.serve.live import LiveSession
from longtake.serve.messages import Frame, Numbered, Status, events
from longtake.serve.schedule import DeviceLimits
from longtake.serve.store import SCOPES
from longtake.serve.worker import Worker
from longtake.serve.writer import SessionWriter
from longtake.studio.script import Script
from longtake.studio.studio import Studio
from longtake.weights.manifest import write_manifest
from tests.serve.serving import Watcher, listening
from tests.tiny import PRESET, write_model

HERE, SOCKETS = "http://127.0.0.1", "ws://127.0.0.1"  # a name that the server knows


@pytest.fixture(
    scope="module",
    params=[pytest.param(1, id="a thread"), pytest.param(2, id="two processes", marks=pytest.mark.slow)],
)
def client(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[TestClient]:
    model, num = write_model(tmp_path_factory.mktemp("model")), request.param
    write_manifest(model, PRESET, {}, Vocabulary(groups={"subjects": {"tiger": ("tiger",)}}, other=("walks",)))
    settings = ServerSettings(
        folder=tmp_path_factory.mktemp("kept"),
        model=str(model),
        devices=("cpu",) * num,
        limits=DeviceLimits(takes=2 // num),
    )
    app = create_app(settings)
    with TestClient(app, base_url=HERE) as client:
        yield client


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of a server on a real socket: answers that never end need one."""
    model = write_model(tmp_path_factory.mktemp("model"))
    app = create_app(ServerSettings(folder=tmp_path_factory.mktemp("kept"), model=str(model)))
    with listening(app) as base:
        yield int(base.rsplit(":", 1)[1])


def records(data: bytes) -> list[dict[str, Any]]:
    """The events of a long answer, as far as it has come."""
    found, at = [], 0
    while at + 8 <= len(data):
        whole, length = struct.unpack_from("<II", data, at)
        if at + 4 + whole > len(data):
            break
        found.append(events.validate_json(data[at + 8 : at + 8 + length]).model_dump())
        at += 4 + whole
    return found


def begun(client: TestClient, **opening: Any) -> dict[str, Any]:
    answer = client.post("/api/takes", json={"prompt": "a tiger walks through a forest", "seed": 3, **opening})
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_frames_come_numbered_and_can_be_decoded_chunk_by_chunk(client: TestClient) -> None:
    take = begun(client)
    with client.websocket_connect(f"{SOCKETS}/api/takes/{take['id']}/live") as socket:
        viewer = Watcher(socket)
        for chunk in range(3):
            event = viewer.whole_chunk(chunk)
            assert event["num_frames"] == (9 if chunk == 0 else 12)
            assert event["parent"] == (chunk - 1 if chunk else None)
        viewer.say(type="close")
        viewer.until("ended")
    assert [e["n"] for e in viewer.entries] == list(range(len(viewer.entries)))
    assert [e["frame"] for e in viewer.entries if e["type"] == "frame"][:33] == list(range(33))
    opened = viewer.entries[0]
    assert (opened["type"], opened["width"], opened["height"], opened["fps"]) == ("opened", 48, 32, 16.0)
    pictures = pictures_of([viewer.frames[1, k] for k in range(12)])
    assert pictures.shape == (12, 32, 48, 3)


def test_the_model_runs_only_so_far_ahead_of_what_is_seen(client: TestClient) -> None:
    take = begun(client)
    with client.websocket_connect(f"{SOCKETS}/api/takes/{take['id']}/live") as socket:
        viewer = Watcher(socket)
        lead = viewer.next()["lead"]
        viewer.until("status", state="buffered")
        viewer.has_frame(0, 8)  # which may be written after it is said to be ahead
        assert len(client.get(f"/api/takes/{take['id']}").json()["tree"]) == 1  # the link is not known yet
        viewer.whole_chunk(0)
        viewer.until("status", state="buffered")
        viewer.has_frame(lead, 11)
        assert len(client.get(f"/api/takes/{take['id']}").json()["tree"]) == 1 + lead
        viewer.whole_chunk(1)
        viewer.until("chunk", chunk=1 + lead)
        viewer.say(type="close")


def test_on_a_slow_link_it_is_one_chunk_ahead_until_chunks_come_in_time(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    if worker_of(client) is None:
        pytest.skip("the clock of another process cannot be set")

    def made(viewer: Watcher, chunks: int) -> None:
        viewer.until("status", state="buffered")
        viewer.has_frame(chunks - 1, 11 if chunks > 1 else 8)
        assert len(client.get(f"/api/takes/{take['id']}").json()["tree"]) == chunks

    take = begun(client)
    now = time.time
    with client.websocket_connect(f"{SOCKETS}/api/takes/{take['id']}/live") as socket:
        viewer = Watcher(socket)
        lead = viewer.next()["lead"]
        made(viewer, 1)
        viewer.whole_chunk(0)  # in time
        made(viewer, 1 + lead)
        monkeypatch.setattr(time, "time", lambda: now() + 10)  # so long were these on their way
        for chunk in range(1, 1 + lead):
            viewer.whole_chunk(chunk)
        made(viewer, 2 + lead)
        viewer.whole_chunk(1 + lead)  # in time
        made(viewer, 2 + 2 * lead)
        viewer.say(type="close")


def test_who_comes_back_gets_everything_once_and_in_order(client: TestClient) -> None:
    take = begun(client)
    url = f"{SOCKETS}/api/takes/{take['id']}/live"
    entries: list[dict[str, Any]] = []
    for cut in (5, 3, 14, 1, 20, 30):
        with client.websocket_connect(f"{url}?after={len(entries) - 1}") as socket:
            viewer = Watcher(socket)
            while len(viewer.entries) < cut:
                event = viewer.next()
                if event["type"] == "chunk":
                    viewer.say(type="seen", chunk=event["chunk"])
            entries += viewer.entries
    assert [e["n"] for e in entries] == list(range(len(entries)))
    frames = [e["frame"] for e in entries if e["type"] == "frame"]
    assert frames == list(range(len(frames)))


def test_a_cue_is_accepted_and_then_applied_where_it_was_due(client: TestClient) -> None:
    take = begun(client)
    with client.websocket_connect(f"{SOCKETS}/api/takes/{take['id']}/live") as socket:
        viewer = Watcher(socket)
        viewer.whole_chunk(0)
        viewer.say(type="cue", event_id="e1", change="night falls")
        accepted = viewer.until("accepted")
        assert accepted["event_id"] == "e1"
        chunk = accepted["due_at"]["index"]
        for seen in range(1, chunk + 1):
            viewer.whole_chunk(seen)
        applied = next(e for e in viewer.entries if e["type"] == "applied")
        assert (applied["event_id"], applied["cue"], applied["at"]) == ("e1", accepted["cue"], accepted["due_at"])
        shown = next(e for e in viewer.entries if e["type"] == "chunk" and e["index"] == chunk)
        assert shown["prompt"] == "a tiger walks through a forest, night falls"
        assert shown["cues"] == [accepted["cue"]]
        viewer.say(type="cue", event_id="e2", change="snow starts to fall", at=chunk + 50)
        waiting = viewer.until("accepted")
        viewer.say(type="cancel", event_id="e3", cue=waiting["cue"])
        assert viewer.until("cancelled")["event_id"] == "e3"
        viewer.say(type="close")


def test_a_chunk_shown_late_after_the_head_has_moved_does_not_stop_the_take(client: TestClient) -> None:
    take = begun(client)
    with client.websocket_connect(f"{SOCKETS}/api/takes/{take['id']}/live") as socket:
        viewer = Watcher(socket)
        for chunk in range(2):
            viewer.whole_chunk(chunk)
        viewer.say(type="rewind", event_id="back", to=None)
        viewer.until("head", event_id="back")
        late = [event["chunk"] for event in viewer.entries if event["type"] == "chunk" and event["branch"] == 0]
        for chunk in late:  # a player that had them in its buffer
            viewer.say(type="seen", chunk=chunk)
        fresh = viewer.until("chunk", branch=1)
        for index in range(5):  # more than the lead
            fresh = viewer.until("chunk", branch=1, index=index) if index else fresh
            viewer.has_frame(fresh["chunk"], fresh["num_frames"] - 1)
            viewer.say(type="seen", chunk=fresh["chunk"])
            viewer.say(type="seen", chunk=late[-1])
        viewer.say(type="close")
        viewer.until("ended")


def test_a_retake_shares_the_past_and_a_rewind_goes_back(client: TestClient) -> None:
    take = begun(client)
    with client.websocket_connect(f"{SOCKETS}/api/takes/{take['id']}/live") as socket:
        viewer = Watcher(socket)
        for chunk in range(3):
            viewer.whole_chunk(chunk)
        viewer.say(type="retake", event_id="r1", after=1, prompt="a red boat on the sea", guidance=1.5)
        head = viewer.until("head")
        assert (head["event_id"], head["chunk"], head["prompt"]) == ("r1", 1, "a red boat on the sea")
        new = viewer.until("chunk", branch=head["branch"])
        assert (new["parent"], new["index"], new["start_frame"]) == (1, 2, 21)
        viewer.say(type="cue", event_id="c", change="night falls")
        due = viewer.until("accepted", event_id="c")["due_at"]["index"]
        applied = viewer.until("applied", shows=True, event_id="c")
        shown = next(e for e in viewer.entries if e["type"] == "chunk" and e["chunk"] == applied["chunk"])
        assert (shown["branch"], shown["index"], shown["cues"]) == (head["branch"], due, [applied["cue"]])
        assert shown["chunk"] > due  # counted over all branches
        viewer.say(type="rewind", event_id="r2", to=0)
        head = viewer.until("head")
        again = viewer.until("chunk", branch=head["branch"])
        assert (again["parent"], again["index"]) == (0, 1)
        # The same words, seed and past give the same chunk, bit for bit.
        first = [e for e in viewer.entries if e["type"] == "chunk" and e["chunk"] == 1]
        viewer.whole_chunk(again["chunk"])
        same = [pictures_of([viewer.frames[c, k] for k in range(12)]) for c in (first[0]["chunk"], again["chunk"])]
        assert (same[0] == same[1]).all()
        viewer.say(type="pause", event_id="p")
        viewer.until("done", event_id="p")
        if viewer.status["state"] != "paused":
            viewer.until("status", state="paused")
        viewer.say(type="close")
        viewer.until("ended")
    mp4 = client.get(f"/api/takes/{take['id']}/paths/{again['chunk']}.mp4")
    assert mp4.status_code == 200
    assert b"moov" in mp4.content[:2000]
    large = client.get(f"/api/takes/{take['id']}/paths/{again['chunk']}.webp?scale=3")
    with Image.open(BytesIO(large.content)) as animation:
        assert animation.size == (144, 96)
    assert client.get(f"/api/takes/{take['id']}/paths/{again['chunk']}.webp?scale=5").status_code == 422
    script = client.get(f"/api/takes/{take['id']}/paths/{new['chunk']}.json").json()
    assert script["chunks"] == 3
    assert script["cues"][0]["prompt"] == "a red boat on the sea"
    assert script["cues"][0]["guidance"] == 1.5


def test_what_cannot_be_done_is_refused_with_a_reason(client: TestClient) -> None:
    take = begun(client)
    with client.websocket_connect(f"{SOCKETS}/api/takes/{take['id']}/live") as socket:
        viewer = Watcher(socket)
        viewer.whole_chunk(0)
        viewer.say(type="cue", event_id="a", change="")
        assert "change" in viewer.until("refused", event_id="a")["message"]
        viewer.say(type="retake", event_id="b", after=99)
        assert "no chunk 99" in viewer.until("refused", event_id="b")["message"]
        viewer.say(type="jump", event_id="c")
        assert viewer.until("refused", event_id="c")["code"] == "bad_message"
        socket.send_text("{")
        viewer.until("refused", event_id=None)
        viewer.say(type="keys", event_id="d", held=["left"])
        assert "no game" in viewer.until("refused", event_id="d")["message"]
        socket.send_bytes(b"no picture")
        assert "no live source" in viewer.until("refused", event_id=None)["message"]
        viewer.say(type="close")
    assert client.post("/api/takes", json={"prompt": ""}).status_code == 422
    assert client.post("/api/takes", json={"prompt": "x", "wrong": 1}).json()["error"]["param"] == "wrong"
    assert client.get("/api/takes/nobody-knows-this-id").status_code == 404


def test_a_link_to_look_on_cannot_direct(client: TestClient) -> None:
    take = begun(client)
    with client.websocket_connect(f"{SOCKETS}/api/takes/{take['watch']}/live") as socket:
        viewer = Watcher(socket)
        viewer.whole_chunk(0)
        viewer.say(type="cue", event_id="e", change="night falls")
        assert viewer.until("refused", event_id="e")["code"] == "forbidden"
    answers = [client.get(f"/api/takes/{take['watch']}{rest}") for rest in ("", "/paths/0.json", "/chunks/0.frames")]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert answers[0].json()["id"] == take["watch"]
    assert not any(take["id"].encode() in answer.content for answer in answers)  # with it, anyone could direct
    assert client.post(f"/api/takes/{take['watch']}/commands", json={"type": "close"}).status_code == 403
    assert client.delete(f"/api/takes/{take['watch']}").status_code == 403
    assert client.delete(f"/api/takes/{take['id']}").status_code == 204
    assert client.get(f"/api/takes/{take['id']}").status_code == 404


def test_keys_watch_direct_and_see_what_their_scope_allows(tmp_path: Path) -> None:
    access = AccessPolicy(names=("127.0.0.1",), keys_required=True)
    settings = ServerSettings(folder=tmp_path / "kept", model=str(write_model(tmp_path / "model")), access=access)
    app = create_app(settings)
    keys = {scope: {"Authorization": f"Bearer {app.state.store.create_key(scope, scope=scope)[1]}"} for scope in SCOPES}
    with TestClient(app, base_url=HERE) as client:
        take = client.post("/api/takes", json={"prompt": "a tiger"}, headers=keys["create"]).json()["id"]
        for scope, answers in (("watch", "refused"), ("direct", "accepted")):
            with client.websocket_connect(f"{SOCKETS}/api/takes/{take}/live", headers=keys[scope]) as socket:
                viewer = Watcher(socket)
                viewer.whole_chunk(0)
                viewer.say(type="cue", event_id=scope, change="night falls")
                assert viewer.until(answers, event_id=scope)
        seen = {
            scope: [one["id"] for one in client.get("/api/takes", headers=headers).json()["takes"]]
            for scope, headers in keys.items()
        }
        assert seen == {"watch": [], "direct": [], "create": [take], "admin": [take]}
        video = client.post("/v1/videos", json={"prompt": "a boat", "seconds": "1"}, headers=keys["create"]).json()
        statuses = {
            scope: client.get(f"/v1/videos/{video['id']}", headers=headers).status_code
            for scope, headers in keys.items()
        }
        assert statuses == {"watch": 404, "direct": 404, "create": 200, "admin": 200}


def test_the_same_events_come_over_plain_http_and_frames_as_jpegs(client: TestClient) -> None:
    take = begun(client)
    with client.websocket_connect(f"{SOCKETS}/api/takes/{take['id']}/live?frames=jpeg") as socket:
        viewer = Watcher(socket)
        viewer.whole_chunk(0)
        viewer.whole_chunk(1)
        viewer.say(type="close")
        viewer.until("ended")
    assert all(data[:2] == b"\xff\xd8" for data in viewer.frames.values())
    with client.stream("GET", f"/api/takes/{take['id']}/events?after=4") as answer:
        data = b"".join(answer.iter_bytes())
    found = records(data)
    assert found[0]["type"] == "status"
    assert [e["n"] for e in found if "n" in e] == [e["n"] for e in viewer.entries][5:]
    chunk = client.get(f"/api/takes/{take['id']}/chunks/1.frames")
    assert "immutable" in chunk.headers["cache-control"]
    assert client.get(f"/api/takes/{take['id']}/chunks/1.jpg").content[:2] == b"\xff\xd8"


@pytest.mark.parametrize(
    "fault", [MediaError("cannot write /kept/takes/secret-id: the disk is full"), ValueError("of our own")]
)
def test_who_watches_jpegs_hears_of_a_chunk_that_is_cut_off(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    if worker_of(client) is None:
        pytest.skip("the fault is put into this process")
    take = begun(client)
    append = SessionWriter.append

    def cut_off(self: SessionWriter, event: Numbered, payload: bytes = b"") -> Numbered:
        if isinstance(event, Frame) and (event.chunk, event.k) == (1, 5):
            raise fault
        return append(self, event, payload)

    monkeypatch.setattr(SessionWriter, "append", cut_off)
    with client.websocket_connect(f"{SOCKETS}/api/takes/{take['id']}/live?frames=jpeg") as socket:
        viewer = Watcher(socket)
        viewer.whole_chunk(0)
        ended = viewer.until("ended", why="failed")
    assert ("a full disk" if isinstance(fault, MediaError) else "internal error") in ended["message"]
    assert "secret-id" not in ended["message"]
    assert {key[0] for key in viewer.frames} == {0}


def test_a_take_can_be_watched_and_directed_over_plain_http_alone(port: int) -> None:
    base = f"http://127.0.0.1:{port}/api/takes"
    take = httpx.post(base, json={"prompt": "a tiger"}).json()
    data, seen = b"", -1
    with httpx.stream("GET", f"{base}/{take['id']}/events", timeout=20) as answer:
        for piece in answer.iter_raw():
            data += piece
            newest = max((e["chunk"] for e in records(data) if e["type"] == "chunk"), default=-1)
            if newest > seen:
                httpx.post(f"{base}/{take['id']}/commands", json={"type": "seen", "chunk": newest}).raise_for_status()
                seen = newest
            if seen == 6:
                closed = httpx.post(f"{base}/{take['id']}/commands", json={"type": "close", "event_id": "c"}).json()
                assert (closed["type"], closed["event_id"]) == ("ended", "c")
                seen = 7
    assert records(data)[-1]["type"] == "ended"


def test_a_game_is_played_with_keys(client: TestClient) -> None:
    take = begun(client, source={"kind": "game"}, prompt="a tiger walks on the grass")
    with client.websocket_connect(f"{SOCKETS}/api/takes/{take['id']}/live") as socket:
        viewer = Watcher(socket)
        viewer.whole_chunk(0)
        viewer.say(type="keys", event_id="k", held=["right"])
        viewer.until("done", event_id="k")
        viewer.whole_chunk(1)
        viewer.say(type="rewind", event_id="r", to=0)
        assert "follows its source" in viewer.until("refused", event_id="r")["message"]
        viewer.say(type="close")


def test_the_model_is_listed(client: TestClient) -> None:
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["id"], model["object"]) == ("test", "model")
    assert client.get("/v1/models/test").json() == model
    assert client.get("/v1/models/other/model").status_code == 404


def test_a_third_take_waits_for_its_turn(client: TestClient) -> None:
    takes = [begun(client) for _ in range(3)]
    sockets = [client.websocket_connect(f"{SOCKETS}/api/takes/{take['id']}/live") for take in takes]
    with sockets[0] as one, sockets[1] as two, sockets[2] as three:
        for socket in (one, two):
            Watcher(socket).until("chunk")
        waiting = Watcher(three)
        waiting.until("status", state="queued", position=1)
        one.send_json({"type": "close"})
        waiting.until("chunk")
        for socket in (two, three):
            socket.send_json({"type": "close"})


def test_silent_viewers_give_their_place_to_who_waits_and_get_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewers, "SILENT_S", 1.0)
    settings = ServerSettings(
        folder=tmp_path / "kept", model=str(write_model(tmp_path / "model")), limits=DeviceLimits(takes=1)
    )
    with TestClient(create_app(settings), base_url=HERE) as client:
        takes = [begun(client) for _ in range(2)]
        first, second = (client.websocket_connect(f"{SOCKETS}/api/takes/{take['id']}/live") for take in takes)
        with first as one, second as two:
            silent, waiting = Watcher(one), Watcher(two)
            silent.until("status", state="buffered")
            silent.has_frame(0, 8)  # which may be written after it is said to be ahead
            waiting.until("status", state="queued", position=1)
            waiting.until("chunk")  # given up by the first, which still has a viewer
            waiting.until("status", state="buffered")
            silent.say(type="seen", chunk=silent.entries[-1]["chunk"])
            silent.until("status", state="queued", position=1)
            silent.until("chunk", chunk=1)  # once the second one has been silent as long
            for viewer in (silent, waiting):
                viewer.say(type="close")


def test_viewers_who_show_chunks_keep_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewers, "SILENT_S", 1.0)
    settings = ServerSettings(
        folder=tmp_path / "kept", model=str(write_model(tmp_path / "model")), limits=DeviceLimits(takes=1)
    )
    with TestClient(create_app(settings), base_url=HERE) as client:
        takes = [begun(client) for _ in range(2)]
        first, second = (client.websocket_connect(f"{SOCKETS}/api/takes/{take['id']}/live") for take in takes)
        with first as one, second as two:
            watching, waiting = Watcher(one), Watcher(two)
            waiting.until("status", state="queued", position=1)
            for chunk in range(8):
                watching.whole_chunk(chunk)
                time.sleep(0.3)
            waiting.say(type="close")
            waiting.until("ended")
            assert not any(entry["type"] == "chunk" for entry in waiting.entries)
            watching.say(type="close")


def test_when_the_queue_is_full_the_next_is_told_to_come_back(tmp_path: Path) -> None:
    settings = ServerSettings(
        folder=tmp_path / "kept", model=str(write_model(tmp_path / "model")), limits=DeviceLimits(takes=1, waiting=2)
    )
    with TestClient(create_app(settings), base_url=HERE) as client:
        answers = [client.post("/api/takes", json={"prompt": "a tiger"}) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [201, 201, 201, 503, 503]
    assert answers[3].json()["error"]["code"] == "busy"
    assert int(answers[3].headers["retry-after"]) > 0
    with TestClient(create_app(settings), base_url=HERE) as client:
        take = begun(client)
        followed(client, take, 1)
        client.post(f"/api/takes/{take['id']}/commands", json={"type": "close"})
        answers = [client.post(f"/api/takes/{take['id']}/chunks/0/takes") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [201, 201, 201, 503, 503]
    assert len(list((tmp_path / "kept" / "takes").iterdir())) == 3 + 1 + 3


def test_an_earlier_process_is_remembered(tmp_path: Path) -> None:
    settings = ServerSettings(folder=tmp_path / "kept", model=str(write_model(tmp_path / "model")))
    with TestClient(create_app(settings), base_url=HERE) as client:
        take = begun(client)
        with client.websocket_connect(f"{SOCKETS}/api/takes/{take['id']}/live") as socket:
            viewer = Watcher(socket)
            viewer.whole_chunk(0)
            viewer.say(type="cue", change="night falls", at=4)  # what is ahead of the viewer is made already
            for chunk in range(1, 5):
                viewer.whole_chunk(chunk)
        scripts = [client.get(f"/api/takes/{take['id']}/paths/{chunk}.json").json() for chunk in (1, 4)]
        assert [len(script["cues"]) for script in scripts] == [0, 1]
        before = client.get(f"/api/takes/{take['id']}/chunks/1.frames").content
    (log,) = (tmp_path / "kept" / "takes").glob("*/log")
    log.write_bytes(log.read_bytes()[:-3])  # as a crash leaves it
    with TestClient(create_app(settings), base_url=HERE) as client:
        assert [t["id"] for t in client.get("/api/takes").json()["takes"]] == [take["id"]]
        assert client.get(f"/api/takes/{take['id']}/chunks/1.frames").content == before
        assert [client.get(f"/api/takes/{take['id']}/paths/{c}.json").json() for c in (1, 4)] == scripts
        with client.websocket_connect(f"{SOCKETS}/api/takes/{take['id']}/live") as socket:
            viewer = Watcher(socket)
            for chunk in range(5):
                viewer.whole_chunk(chunk)
            viewer.say(type="cue", event_id="late", change="fog")  # it goes on when somebody comes back
            applied = viewer.until("applied", shows=True, event_id="late", cue=2)
            viewer.whole_chunk(applied["chunk"])
            assert [e["n"] for e in viewer.entries] == list(range(len(viewer.entries)))
            script = client.get(f"/api/takes/{take['id']}/paths/{applied['chunk']}.json").json()
            assert len(script["cues"]) == 2
            assert len(script["rebuilt"]) == 1
            viewer.say(type="close")
            viewer.until("ended", why="closed")
        replayed = torch.cat([chunk.frames for chunk in live_studio(client).replay(Script(**script)).stream()])
        assert replayed[-12:].equal(shown(client, take["id"])[: len(replayed)][-12:])


def worker_of(client: TestClient) -> Worker | None:
    """The worker, if it is in this process."""
    worker = client.app.state.host.workers[0]  # type: ignore[attr-defined]
    return worker if isinstance(worker, Worker) else None


def live(client: TestClient, take: str) -> LiveSession:
    """A session where it is made."""
    worker = worker_of(client)
    assert worker is not None
    return worker._session(take)


def followed(client: TestClient, take: dict[str, Any], chunks: int) -> Watcher:
    """Watch a take until it has some chunks."""
    with client.websocket_connect(f"{SOCKETS}/api/takes/{take['id']}/live") as socket:
        viewer = Watcher(socket)
        for chunk in range(chunks):
            viewer.whole_chunk(chunk)
        return viewer


def gone_on(client: TestClient, take: dict[str, Any], chunk: int) -> dict[str, Any]:
    answer = client.post(f"/api/takes/{take['id']}/chunks/{chunk}/takes")
    assert answer.status_code == 201, answer.text
    return answer.json()


def live_studio(client: TestClient) -> Studio:
    worker = worker_of(client)
    assert worker is not None
    return worker.studio


def shown(client: TestClient, take: str) -> torch.Tensor:
    """All that a take of a host in this process has made, before H.264."""
    return torch.cat(list(live(client, take).take.frames()))


def test_a_take_that_is_over_goes_on_as_another(client: TestClient) -> None:
    take = begun(client)
    before = followed(client, take, 4).frames
    client.post(f"/api/takes/{take['id']}/commands", json={"type": "close"})
    other = gone_on(client, take, 1)
    assert other["id"] not in (take["id"], take["watch"])
    assert other["opened"] == take["opened"]
    viewer = followed(client, other, 4)
    assert all(viewer.frames[key] == data for key, data in before.items() if key[0] < 2)
    if worker_of(client) is not None:
        frames = 9 + 3 * 12
        assert shown(client, other["id"])[:frames].equal(shown(client, take["id"])[:frames])
    assert "rebuilding" not in [e["state"] for e in viewer.others if e["type"] == "status"]  # it was still known
    for one in (take, other):
        client.delete(f"/api/takes/{one['id']}")
    assert client.post(f"/api/takes/{other['id']}/chunks/1/takes").status_code == 404


def test_a_take_of_an_earlier_process_goes_on_bit_for_bit(tmp_path: Path) -> None:
    settings = ServerSettings(folder=tmp_path / "kept", model=str(write_model(tmp_path / "model")))
    with TestClient(create_app(settings), base_url=HERE) as client:
        take = begun(client)
        with client.websocket_connect(f"{SOCKETS}/api/takes/{take['id']}/live") as socket:
            viewer = Watcher(socket)
            viewer.whole_chunk(0)
            viewer.say(type="cue", change="night falls", at=4)
            for chunk in range(1, 8):
                viewer.whole_chunk(chunk)
        before = shown(client, take["id"])
    with TestClient(create_app(settings), base_url=HERE) as client:
        other = gone_on(client, take, 5)
        script = client.get(f"/api/takes/{other['id']}/paths/5.json").json()
        assert (script["chunks"], len(script["cues"])) == (6, 1)
        for words, refusal in (  # nothing is made before somebody watches
            ({"type": "cue", "change": "snow falls", "at": 5}, "for chunk 6 or later"),
            ({"type": "cue", "change": "snow falls", "at_s": 1.0}, "for chunk 6 or later"),
            ({"type": "rewind", "to": 2}, "when that is done"),
        ):
            answer = client.post(f"/api/takes/{other['id']}/commands", json=words)
            assert answer.status_code == 400
            assert refusal in answer.json()["error"]["message"]
        for words, index in (({"at": 8, "change": "snow falls"}, 8), ({"change": "night falls"}, 6)):
            answer = client.post(f"/api/takes/{other['id']}/commands", json={"type": "cue", **words})
            assert answer.json()["due_at"]["index"] == index
        assert client.post(f"/api/takes/{other['id']}/commands", json={"type": "cancel", "cue": 2}).status_code == 200
        third = gone_on(client, other, 4)  # of one that remembers nothing itself
        client.post(f"/api/takes/{other['id']}/commands", json={"type": "pause"})
        assert client.get(f"/api/takes/{other['id']}").json()["state"] == "paused"
        client.post(f"/api/takes/{other['id']}/commands", json={"type": "resume"})
        statuses: list[Status] = []
        client.app.state.host.session(other["id"]).listen(statuses.append)  # type: ignore[attr-defined]
        with client.websocket_connect(f"{SOCKETS}/api/takes/{other['id']}/live") as socket:
            viewer = Watcher(socket)
            for chunk in range(9):
                viewer.whole_chunk(chunk)
            assert shown(client, other["id"])[: 9 + 7 * 12].equal(before[: 9 + 7 * 12])
            viewer.say(type="rewind", to=3)  # now it may go back
            viewer.until("head", chunk=3)
            assert viewer.until("chunk", parent=3)["index"] == 4
        followed(client, third, 6)
        assert shown(client, third["id"])[: 9 + 5 * 12].equal(before[: 9 + 5 * 12])
        shares = [status.rebuilt for status in statuses if status.state == "rebuilding"]
        assert shares == [0.0, 0.17, 0.33, 0.5, 0.67, 0.83]
        script = client.get(f"/api/takes/{other['id']}/paths/8.json").json()
        assert [cue["chunk"] for cue in script["cues"]] == [4, 8]


def test_a_take_that_began_with_a_clip_goes_on_in_another_process(tmp_path: Path) -> None:
    settings = ServerSettings(folder=tmp_path / "kept", model=str(write_model(tmp_path / "model")))
    with open_writer(tmp_path / "clip.mp4", fps=16, size=PictureSize(height=32, width=48)) as writer:
        writer.push(torch.arange(48, dtype=torch.uint8).reshape(48, 1, 1, 1).expand(48, 32, 48, 3) * 5)
    with TestClient(create_app(settings), base_url=HERE) as client:
        headers = {"Content-Type": "video/mp4"}
        clip = client.post("/api/assets", content=(tmp_path / "clip.mp4").read_bytes(), headers=headers).json()["id"]
        take = begun(client, clip=clip)
        followed(client, take, 4)
        before = shown(client, take["id"])
        first, *_, last = client.get(f"/api/takes/{take['id']}").json()["tree"][:4]
        assert first["index"] > 0
    with TestClient(create_app(settings), base_url=HERE) as client:
        other = gone_on(client, take, 2)
        statuses: list[Status] = []
        client.app.state.host.session(other["id"]).listen(statuses.append)  # type: ignore[attr-defined]
        followed(client, other, 4)
        num_frames = last["start_frame"] + last["num_frames"] - first["start_frame"]
        assert shown(client, other["id"])[:num_frames].equal(before[:num_frames])
        assert [status.rebuilt for status in statuses if status.state == "rebuilding"] == [0.0, 0.33, 0.67]


def test_health(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").status_code == 200
    about = client.get("/api/about").json()
    assert (about["model"], about["width"], len(about["examples"])) == ("test", 48, 6)


def test_unknown_words_are_told_with_what_is_nearest(client: TestClient) -> None:
    answer = client.get("/api/words", params={"prompt": "a lion walks"}).json()
    assert answer["known"]["subjects"] == {"tiger": ["tiger"]}
    assert answer["unknown"] == [{"word": "lion", "nearest": "tiger"}]
    assert client.get("/api/words").json()["unknown"] == []
    assert client.get("/api/words", params={"prompt": "x" * 1001}).status_code == 422


def test_memory_of_a_take_that_is_over_is_released_and_it_still_goes_on(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    if worker_of(client) is None:
        pytest.skip("the limit in another process cannot be set")
    take = begun(client)
    before = followed(client, take, 3).frames
    session = live(client, take["id"])
    client.post(f"/api/takes/{take['id']}/commands", json={"type": "close"})
    assert session.has_memory()  # to go on from at once
    monkeypatch.setattr(worker, "MEMORY_S", 0.0)
    deadline = time.monotonic() + 10
    while session.has_memory() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not session.has_memory()
    viewer = followed(client, gone_on(client, take, 2), 4)
    assert all(viewer.frames[key] == data for key, data in before.items())

"""What a server keeps."""

import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from longtake.serve.app import ServerSettings, create_app
from longtake.serve.host import Session
from longtake.serve.retention import DAY_S, GB, Item, Retention, delete_outdated
from tests.serve.serving import Watcher
from tests.tiny import write_model

HERE = "http://localhost"
NOW = 100.0 * DAY_S


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({}, 5),
        ({"takes": 0}, 0),
        ({"takes": 3}, 3),
        ({"takes": 9}, 5),
        ({"days": 2.5}, 3),
        ({"gb": 3.0}, 2),  # 1 + 1 + 4 GB: the third does not fit, and nothing older is kept in its place
        ({"gb": 6.0}, 3),
        ({"takes": 4, "days": 2.5, "gb": 100.0}, 3),
    ],
)
def test_the_newest_are_kept_as_far_as_the_limits_allow(limits: dict[str, float], kept: int) -> None:
    gigabytes = [1, 1, 4, 1, 1]
    items = [
        Item(created_at=NOW - age * DAY_S, num_bytes=size * GB, delete=lambda: None)
        for age, size in enumerate(gigabytes)
    ]
    assert Retention(**limits).outdated(items[::-1], NOW) == items[kept:]  # type: ignore[arg-type]


def test_starred_ones_are_deleted_last(tmp_path: Path) -> None:
    starred = Item(created_at=1, num_bytes=GB, starred=True, delete=lambda: None)
    older, newer = (Item(created_at=at, num_bytes=GB, delete=lambda: None) for at in (2, 3))
    assert Retention(takes=2).outdated([newer, older, starred], NOW) == [older]
    assert Retention(takes=1).outdated([newer, older, starred], NOW) == [newer, older]
    assert Retention(takes=0).outdated([newer, older, starred], NOW) == [starred, newer, older]
    settings = ServerSettings(folder=tmp_path / "kept", model=str(write_model(tmp_path / "model")))
    app = create_app(settings)
    with TestClient(app, base_url=HERE) as client:
        takes = [client.post("/api/takes", json={"prompt": "a tiger"}).json() for _ in range(3)]
        for take in takes:
            client.post(f"/api/takes/{take['id']}/commands", json={"type": "close"})
        first = takes[0]
        assert client.put(f"/api/takes/{first['watch']}/star").status_code == 403
        for _ in range(2):
            assert client.put(f"/api/takes/{first['id']}/star").status_code == 204
        assert [take["starred"] for take in client.get("/api/takes").json()["takes"]] == [False, False, True]
        delete_outdated(Retention(takes=2), app.state.jobs)
        assert listed(client) == [takes[2]["id"], first["id"]]
        for _ in range(2):
            assert client.delete(f"/api/takes/{first['id']}/star").status_code == 204
        delete_outdated(Retention(takes=1), app.state.jobs)
        assert listed(client) == [takes[2]["id"]]


def test_one_that_cannot_be_deleted_does_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = ServerSettings(folder=tmp_path / "kept", model=str(write_model(tmp_path / "model")))
    app = create_app(settings)
    with TestClient(app, base_url=HERE) as client:
        takes = [client.post("/api/takes", json={"prompt": "a tiger"}).json()["id"] for _ in range(3)]
        for take in takes:
            client.post(f"/api/takes/{take}/commands", json={"type": "close"})
        host, forget = app.state.host, type(app.state.host).forget

        def stuck(self: object, session: Session) -> None:
            if session.id == takes[1]:
                raise OSError("busy")
            forget(self, session)

        monkeypatch.setattr(type(host), "forget", stuck)
        delete_outdated(Retention(takes=0), app.state.jobs)
        assert listed(client) == [takes[1]]
    assert "could not be deleted" in caplog.text


def test_old_takes_and_videos_are_deleted_and_running_ones_are_not(tmp_path: Path) -> None:
    settings = ServerSettings(folder=tmp_path / "kept", model=str(write_model(tmp_path / "model")))
    app = create_app(settings)
    with TestClient(app, base_url=HERE) as client:
        takes = []
        for _ in range(3):
            takes.append(client.post("/api/takes", json={"prompt": "a tiger"}).json()["id"])
            with client.websocket_connect(f"ws://localhost/api/takes/{takes[-1]}/live") as socket:
                Watcher(socket).whole_chunk(0)
        for take in takes[:2]:
            client.post(f"/api/takes/{take}/commands", json={"type": "close"})
        time.sleep(1)  # videos are dated by whole seconds
        video = client.post("/v1/videos", json={"prompt": "a tiger", "seconds": 1}).json()["id"]
        end_s = time.monotonic() + 30
        while client.get(f"/v1/videos/{video}").json()["status"] != "completed" and time.monotonic() < end_s:
            time.sleep(0.05)

        delete_outdated(Retention(takes=2), app.state.jobs)
        assert listed(client) == [takes[2], takes[1]]
        assert client.get(f"/v1/videos/{video}").json()["status"] == "completed"

        delete_outdated(Retention(days=0), app.state.jobs)
        assert listed(client) == [takes[2]]
        assert client.get("/v1/videos").json()["data"] == []
        assert list((tmp_path / "kept" / "videos").iterdir()) == []
        assert len(list((tmp_path / "kept" / "takes").iterdir())) == 1


def listed(client: TestClient) -> list[str]:
    return [take["id"] for take in client.get("/api/takes").json()["takes"]]

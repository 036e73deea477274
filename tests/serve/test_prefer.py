"""The page of blind pairs: what it is told, and that it is not told whose a film is."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from longtake.evals.preferences import Ballot, pairs_of
from longtake.serve.prefer import create_app


@pytest.fixture
def ballot(tmp_path: Path) -> Ballot:
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
        for film in ("a red car-0.mp4", "a tiger.mp4"):
            (tmp_path / name / film).write_bytes(f"{name} {film}".encode())
    return Ballot(pairs_of(_folders(tmp_path)), tmp_path / "votes.jsonl")


@pytest.fixture
def client(ballot: Ballot, tmp_path: Path) -> TestClient:
    return TestClient(create_app(ballot, _folders(tmp_path)), base_url="http://localhost")


def _folders(tmp_path: Path) -> dict[str, Path]:
    return {name: tmp_path / name for name in ("ours", "theirs")}


def test_pairs_are_asked_one_after_the_other(client: TestClient, ballot: Ballot) -> None:
    question = client.get("/next").json()
    assert (question["pair"], question["done"], question["of"]) == (0, 0, 2)
    assert question["prompt"] in ("a red car", "a tiger")
    for side in ("left", "right"):
        whose = getattr(ballot.pairs[0], side)
        assert client.get(f"/films/0/{side}").content == f"{whose} {ballot.pairs[0].film}".encode()
    assert client.post("/vote", json={"pair": 0, "choice": "left"}).json()["pair"] == 1
    assert client.post("/vote", json={"pair": 1, "choice": "tie"}).json()["pair"] is None
    assert [vote.choice for vote in ballot.votes] == ["left", "tie"]


def test_nothing_says_whose_a_film_is(client: TestClient) -> None:
    for path in ("/", "/next", "/page/prefer.js"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "ours" not in answer.text.replace("yours", "")
        assert "theirs" not in answer.text
    film = client.get("/films/0/left")
    assert not {"ours", "theirs"} & set(" ".join(film.headers.values()).split("/"))
    assert "content-disposition" not in film.headers


def test_what_cannot_be_is_refused(client: TestClient, ballot: Ballot) -> None:
    assert client.get("/films/9/left").status_code == 404
    assert client.get("/films/0/middle").status_code == 422
    assert client.post("/vote", json={"pair": 0, "choice": "both"}).status_code == 422
    assert client.post("/vote", json={"pair": 9, "choice": "left"}).status_code == 400
    assert client.get("/next", headers={"Host": "evil.example"}).status_code == 400
    assert ballot.votes == []

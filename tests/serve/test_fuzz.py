"""Whatever comes over the wire: an answer that says what is wrong, never a fault of the server."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longtake.serve.app import ServerSettings, create_app
from tests.tiny import write_model

# the server's threads draw random numbers of their own, which hypothesis takes for the test's
pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")

SLOW = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.function_scoped_fixture),
)

WORDS = st.text(max_size=30)
NUMBERS = st.one_of(st.integers(), st.floats(), st.just(2**63), st.just(-1))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=5,
)
KINDS = st.sampled_from(["cue", "cancel", "rewind", "retake", "pause", "resume", "seen", "keys", "open", "jump"])
NAMES = "event_id change prompt at at_s transition fade seed steps guidance image cue to after chunk held version wrong"
FIELDS = st.sampled_from(NAMES.split())
HEADS = st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"RIFF0000WEBP", b"0000ftypisom"])
VIDEO_FIELDS = st.sampled_from(["prompt", "seconds", "size", "model", "input_reference", "seed"])
SAID = st.builds(lambda kind, rest: {**rest, "type": kind}, KINDS, st.dictionaries(FIELDS, VALUES, max_size=4))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    model = write_model(tmp_path_factory.mktemp("model"))
    app = create_app(ServerSettings(folder=tmp_path_factory.mktemp("kept"), model=str(model), max_video_s=2.0))
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def take(client: TestClient) -> str:
    return client.post("/api/takes", json={"prompt": "a tiger"}).json()["id"]


@SLOW
@given(said=SAID)
def test_commands(client: TestClient, take: str, said: dict[str, Any]) -> None:
    text = json.dumps(said)  # NaN and Infinity among it, as JavaScript would never write them
    answer = client.post(f"/api/takes/{take}/commands", content=text, headers={"content-type": "application/json"})
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.json()["error"]["message"]


@SLOW
@given(
    opening=st.dictionaries(
        st.sampled_from(["prompt", "seed", "steps", "guidance", "image", "source", "strength"]), VALUES
    )
)
def test_openings(client: TestClient, opening: dict[str, Any]) -> None:
    answer = client.post("/api/takes", content=json.dumps(opening))
    assert answer.status_code < 500, answer.text
    if answer.status_code == 201:
        client.delete(f"/api/takes/{answer.json()['id']}")


@SLOW
@given(data=st.one_of(st.binary(max_size=300), WORDS.map(lambda text: text.encode("utf-8", "replace"))))
def test_what_is_said_on_a_socket(client: TestClient, take: str, data: bytes) -> None:
    with client.websocket_connect(f"ws://127.0.0.1/api/takes/{take}/live?after=1000000") as socket:
        socket.send_bytes(data)
        socket.send_text(data.decode("utf-8", "replace"))
        socket.send_json({"type": "pause", "event_id": "still there"})
        while socket.receive_json().get("event_id") != "still there":
            pass


@SLOW
@given(head=HEADS, rest=st.binary(max_size=400))
def test_uploads(client: TestClient, head: bytes, rest: bytes) -> None:
    answer = client.post("/api/assets", content=head + rest)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["error"]["message"]


@SLOW
@given(
    fields=st.dictionaries(st.sampled_from(["prompt", "seconds", "size", "model", "input_reference", "seed"]), VALUES)
)
def test_videos(client: TestClient, fields: dict[str, Any]) -> None:
    for answer in (client.post("/v1/videos", content=json.dumps(fields)), client.post("/v1/videos", data={
        name: str(value) for name, value in fields.items()
    })):  # fmt: skip
        assert answer.status_code < 500 or answer.status_code == 503, answer.text
        if answer.status_code == 200:
            client.delete(f"/v1/videos/{answer.json()['id']}")


@SLOW
@given(path=st.text(st.characters(codec="ascii", exclude_characters="?#"), max_size=40), query=WORDS)
def test_addresses(client: TestClient, path: str, query: str) -> None:
    for prefix in ("/api/takes/", "/v1/videos/", "/api/assets/", "/page/", "/"):
        answer = client.get(prefix + quote(path), params={"after": query, "limit": query})
        assert answer.status_code < 500, (prefix, path)

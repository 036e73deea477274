"""The real client of OpenAI against the real routes."""

import base64
import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from openai.types import Video
from sqlalchemy.exc import OperationalError

import longtake
from longtake.core.errors import MediaError
from longtake.media.clips import read_video
from longtake.media.encode import Mp4Writer
from longtake.serve import jobs
from longtake.serve.log import EventLog, Record
from longtake.serve.messages import Pause, Resume
from longtake.serve.store import Store, VideoRow
from longtake.studio.studio import Studio
from tests.serve.serving import Server, listening, noise
from tests.tiny import write_model

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")

LONG = "30"  # seconds: time enough to look at it while it is made


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with longtake.open(str(write_model(tmp_path_factory.mktemp("model")))) as studio:
        yield studio


@pytest.fixture
def server(studio: Studio, tmp_path: Path) -> Iterator[Server]:
    server = Server(studio, tmp_path)
    yield server
    server.close()


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    with listening(server.app) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def create(client: openai.OpenAI, prompt: str = "a tiger walks", seconds: str = "1", **more: object) -> Video:
    videos: Any = client.videos  # typed for the lengths and sizes of OpenAI's own models
    return videos.create(prompt=prompt, seconds=seconds, **more)


def make(client: openai.OpenAI, seconds: str = "1", **more: object) -> Video:
    videos: Any = client.videos
    return videos.create_and_poll(prompt="a tiger walks", seconds=seconds, **more)


def extend(client: openai.OpenAI, video: str | bytes, seconds: str = "1") -> Video:
    videos: Any = client.videos
    given: dict[str, Any] = {"video": video}
    if isinstance(video, str):  # the form in the client's types is broken in 3.54
        given = {"video": openai.omit, "extra_body": {"video": {"id": video}}}
    return videos.poll(videos.extend(prompt="night falls", seconds=seconds, **given).id)


def begin_and_hold(client: openai.OpenAI, server: Server) -> Video:
    """A long video that makes no more chunks for now."""
    video = create(client, seconds=LONG)
    server.host.session(server.store.video(video.id).session_id or "").do(Pause())
    return video


def frames_of(data: bytes, path: Path) -> torch.Tensor:
    path.write_bytes(data)
    return read_video(path)


def png(width: int = 64, height: int = 48) -> bytes:
    file = io.BytesIO()
    noise(width, height).save(file, "PNG")
    return file.getvalue()


def clip(path: Path, studio: Studio, num_frames: int) -> bytes:
    with Mp4Writer(path, fps=studio.fps, size=studio.size) as writer:
        for level in range(num_frames):
            writer.push(torch.full((1, studio.size.height, studio.size.width, 3), 4 * level, dtype=torch.uint8))
    return path.read_bytes()


def test_a_video_is_made_and_fetched(client: openai.OpenAI, url: str, tmp_path: Path) -> None:
    video = make(client, extra_body={"seed": "7"})
    assert (video.status, video.progress, video.seconds, video.size) == ("completed", 100, "1.31", "48x32")
    assert video.model == "test"
    assert video.completed_at is not None
    assert video.error is None
    assert video.model_extra == {"metadata": {}, "seed": 7, "fps": 16.0, "stream_url": f"/v1/videos/{video.id}/content"}
    data = client.videos.download_content(video.id).read()
    assert frames_of(data, tmp_path / "a.mp4").shape == (21, 32, 48, 3)
    address = f"{url}/v1/videos/{video.id}/content"
    whole = httpx.get(address)
    assert whole.headers["content-length"] == str(len(data))
    assert "immutable" in whole.headers["cache-control"]
    part = httpx.get(address, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, data[100:200])
    assert httpx.get(address, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304
    assert 'longtake_jobs{state="completed"} 1.0' in httpx.get(f"{url}/metrics").text
    assert video.id not in httpx.get(f"{url}/metrics").text


def test_the_same_seed_gives_the_same_frames(client: openai.OpenAI) -> None:
    one, same, other = (make(client, extra_body={"seed": seed}) for seed in (1, 1, 2))
    first, again, third = (client.videos.download_content(video.id).read() for video in (one, same, other))
    assert first == again != third


def test_settings_go_by_the_names_of_other_libraries_too(client: openai.OpenAI, server: Server) -> None:
    settings = {"num_inference_steps": 1, "guidance_scale": 2.5, "negative_prompt": "snow"}
    video = create(client, extra_body=settings)
    opening = server.host.session(server.store.video(video.id).session_id or "").opening
    assert (opening.steps, opening.guidance, opening.negative_prompt) == (1, 2.5, "snow")
    other = create(client, extra_body={"steps": 3, "guidance": 1.5})
    opening = server.host.session(server.store.video(other.id).session_id or "").opening
    assert (opening.steps, opening.guidance, opening.negative_prompt) == (3, 1.5, None)


def test_metadata_is_kept_with_each_video(client: openai.OpenAI, url: str) -> None:
    video = make(client, extra_body={"metadata": {"shot": "12", "by": "ann"}})
    (listed,) = client.videos.list().data
    assert (listed.model_extra or {})["metadata"] == {"shot": "12", "by": "ann"}
    other = client.videos.remix(video.id, prompt="night falls", extra_body={"metadata": {"shot": "13"}})
    assert (other.model_extra or {})["metadata"] == {"shot": "13"}
    form = httpx.post(f"{url}/v1/videos", data={"prompt": "a tiger", "metadata[shot]": "14"})
    assert form.json()["metadata"] == {"shot": "14"}
    for wrong, param in (({"a": "b" * 513}, "metadata.a"), ({str(i): "" for i in range(17)}, "metadata")):
        answer = httpx.post(f"{url}/v1/videos", json={"prompt": "a tiger", "metadata": wrong})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_pictures_of_a_video(client: openai.OpenAI) -> None:
    video = make(client)
    thumbnail = client.videos.download_content(video.id, variant="thumbnail")
    assert thumbnail.response.headers["content-type"] == "image/webp"
    assert thumbnail.read()[8:12] == b"WEBP"
    sheet = client.videos.download_content(video.id, variant="spritesheet")
    assert sheet.response.headers["content-type"] == "image/jpeg"
    assert sheet.read().startswith(b"\xff\xd8")


def test_a_video_can_be_watched_while_it_is_made(
    client: openai.OpenAI, server: Server, url: str, tmp_path: Path
) -> None:
    video = begin_and_hold(client, server)
    session = server.host.session(server.store.video(video.id).session_id or "")
    while not session.chunks():
        session.do(Resume())
        time.sleep(0.01)
    state = client.videos.with_raw_response.retrieve(video.id)
    assert state.headers["openai-poll-after-ms"] == "500"
    until_s = time.monotonic() + 60
    while client.videos.retrieve(video.id).status != "in_progress":
        assert time.monotonic() < until_s
    for variant in ("thumbnail", "spritesheet"):
        with pytest.raises(openai.ConflictError, match="not ready"):
            client.videos.download_content(video.id, variant=variant)
    with httpx.stream("GET", f"{url}/v1/videos/{video.id}/content", timeout=30) as response:
        assert "content-length" not in response.headers
        pieces = response.iter_raw()
        first = next(pieces)
        assert session.ended is None
        data = first + b"".join(pieces)
    assert client.videos.poll(video.id).status == "completed"
    finished = client.videos.download_content(video.id).read()
    streamed = frames_of(data, tmp_path / "grown.mp4")
    assert torch.equal(streamed, frames_of(finished, tmp_path / "finished.mp4"))
    assert len(streamed) >= 30 * 16


def test_a_viewer_who_leaves_stops_nothing(client: openai.OpenAI, server: Server, url: str) -> None:
    video = create(client, seconds="8")
    with httpx.stream("GET", f"{url}/v1/videos/{video.id}/content") as response:
        next(response.iter_raw())
    assert client.videos.poll(video.id).status == "completed"
    assert server.jobs.streams.borrowed_tokens == 0


def test_a_video_begins_with_a_picture(client: openai.OpenAI, url: str, tmp_path: Path) -> None:
    video = make(client, input_reference=("../../etc/a.png", png(), "image/png"))
    assert video.status == "completed"
    frames = frames_of(client.videos.download_content(video.id).read(), tmp_path / "a.mp4")
    assert len(frames) == 25  # the picture, and two chunks: a second at least
    data_url = "data:image/png;base64," + base64.b64encode(png()).decode()
    asset = httpx.post(f"{url}/api/assets", content=png()).json()["id"]
    for reference in ({"image_url": data_url}, {"file_id": asset}):
        answer = httpx.post(f"{url}/v1/videos", json={"prompt": "a", "seconds": 1, "input_reference": reference})
        assert answer.status_code == 200, answer.text
        assert client.videos.poll(answer.json()["id"]).status == "completed"


def test_a_remix_shares_as_many_chunks_as_it_is_told(client: openai.OpenAI, server: Server, tmp_path: Path) -> None:
    original = make(client, "3", extra_body={"seed": 3})
    anew = client.videos.poll(client.videos.remix(original.id, prompt="a red car").id)
    branch = client.videos.poll(client.videos.remix(original.id, prompt="a red car", extra_body={"from_chunk": 2}).id)
    assert anew.remixed_from_video_id == branch.remixed_from_video_id == original.id
    assert (anew.prompt, branch.status) == ("a red car", "completed")
    whole, first, second = (
        frames_of(client.videos.download_content(video.id).read(), tmp_path / f"{video.id}.mp4")
        for video in (original, anew, branch)
    )
    assert len(whole) == len(first) == len(second)
    assert anew.seconds == branch.seconds == f"{len(whole) / 16:.2f}"  # the length of whole chunks
    assert torch.equal(second[:21], whole[:21])
    assert not torch.equal(second[21:], whole[21:])
    assert not torch.equal(first[:21], whole[:21])
    with pytest.raises(openai.BadRequestError, match="from_chunk lies from 0 to 4"):
        client.videos.remix(original.id, prompt="b", extra_body={"from_chunk": 5})
    server.host.forget(server.host.session(server.store.video(original.id).session_id or ""))
    later = client.videos.poll(client.videos.remix(original.id, prompt="a red car", extra_body={"from_chunk": 2}).id)
    assert torch.equal(
        frames_of(client.videos.download_content(later.id).read(), tmp_path / "later.mp4")[:21], whole[:21]
    )


def test_a_video_goes_on(client: openai.OpenAI, server: Server, studio: Studio, tmp_path: Path) -> None:
    video = make(client, "2")
    longer = extend(client, video.id)
    before, after = (
        frames_of(client.videos.download_content(v.id).read(), tmp_path / f"{v.id}.mp4") for v in (video, longer)
    )
    assert torch.equal(after[: len(before)], before)
    assert len(after) >= len(before) + 16
    assert (longer.status, longer.seconds) == ("completed", f"{len(after) / 16:.2f}")
    again = extend(client, longer.id)
    assert again.status == "completed"
    assert float(again.seconds) >= float(longer.seconds) + 1
    upload = extend(client, clip(tmp_path / "c.mp4", studio, 30))
    assert (upload.status, upload.seconds) == ("completed", f"{(21 + 24) / 16:.2f}")
    shared = extend(client, upload.id)
    for video in (upload, shared):
        server.host.forget(server.host.session(server.store.video(video.id).session_id or ""))
    anew = extend(client, upload.id)  # whose past must be made again
    first, second = (
        frames_of(client.videos.download_content(v.id).read(), tmp_path / f"{v.id}.mp4") for v in (shared, anew)
    )
    # one of them has a new H.264 encoder, which chooses otherwise for some frames; another past would change them all
    equal = [torch.equal(a, b) for a, b in zip(first, second, strict=True)]
    chunks = [equal[-24:-12], equal[-12:]]
    assert all(equal[:-24])
    assert all(any(chunk) for chunk in chunks), equal
    assert anew.seconds == f"{len(second) / 16:.2f}"


def test_a_video_is_restyled(client: openai.OpenAI, studio: Studio, tmp_path: Path) -> None:
    source = clip(tmp_path / "source.mp4", studio, 30)
    edited = client.videos.poll(client.videos.edit(prompt="a red car", video=source).id)
    assert edited.status == "completed", edited.error
    frames = frames_of(client.videos.download_content(edited.id).read(), tmp_path / "edited.mp4")
    assert len(frames) == 30
    videos: Any = client.videos
    again = videos.edit(prompt="snow", video=openai.omit, extra_body={"video": {"id": edited.id}})
    assert client.videos.poll(again.id).status == "completed"
    with pytest.raises(openai.BadRequestError, match="made anew as a whole"):
        client.videos.remix(edited.id, prompt="b", extra_body={"from_chunk": 1})


def test_the_list_is_paged_in_both_orders(client: openai.OpenAI) -> None:
    ids = [create(client, f"number {i}").id for i in range(5)]
    assert [video.id for video in client.videos.list(limit=2)] == ids[::-1]
    assert [video.id for video in client.videos.list(limit=2, order="asc")] == ids
    page = client.videos.list(limit=2, after=ids[3])
    assert [video.id for video in page.data] == [ids[2], ids[1]]
    assert page.has_more
    with pytest.raises(openai.NotFoundError):
        client.videos.list(after="video_none")


def test_a_video_can_be_deleted_while_it_is_made(client: openai.OpenAI, server: Server) -> None:
    video = begin_and_hold(client, server)
    session_id = server.store.video(video.id).session_id
    deleted = client.videos.delete(video.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (video.id, True, "video.deleted")
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve(video.id)
    assert session_id not in [session.id for session in server.host.sessions()]
    finished = make(client)
    client.videos.delete(finished.id)
    assert list(server.jobs.files.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "a\x1b[2J"}, "control character"),
        ({"prompt": "a", "seconds": "0"}, "greater than 0"),
        ({"prompt": "a", "seconds": "soon"}, "seconds: "),
        ({"prompt": "a", "seconds": "121"}, "at most 120"),
        ({"prompt": "a", "size": "1280x720"}, '"48x32"'),
        ({"prompt": "a", "model": "veo"}, 'the model here is "test"'),
        ({"prompt": "a", "seed": "x"}, "seed: "),
        ({"prompt": "a", "sede": "1"}, "sede"),
        ({"prompt": "a", "input_reference": "x"}, "input_reference"),
        ({"prompt": "a", "input_reference[image_url]": "http://localhost/"}, "data URL"),
        ({"prompt": "a", "input_reference[image_url]": "data:image/png;base64,###"}, "base64"),
    ],
)
def test_mistakes_are_told(url: str, fields: dict[str, str], message: str) -> None:
    answer = httpx.post(f"{url}/v1/videos", files={name: (None, value) for name, value in fields.items()})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert message in error["message"]
    assert answer.headers["x-request-id"].startswith("req_")


def test_what_is_not_there_or_not_offered(client: openai.OpenAI, url: str) -> None:
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve("video_none")
    with pytest.raises(openai.BadRequestError, match="expected a PNG"):
        client.videos.create(prompt="a", input_reference=("a.png", b"#EXTM3U\nfile:///etc/passwd", "image/png"))
    broken = httpx.post(f"{url}/v1/videos", content=b"{", headers={"Content-Type": "application/json"})
    assert broken.status_code == 400
    assert "JSON" in broken.json()["error"]["message"]
    large = httpx.post(f"{url}/v1/videos", content=b" " * (29 << 20), headers={"Content-Type": "application/json"})
    assert large.status_code == 413
    assert httpx.post(f"{url}/v1/videos/characters", json={}).status_code == 501
    assert httpx.get(f"{url}/v1/none").json()["error"]["message"] == "Not Found"


def test_keys_keep_videos_apart(studio: Studio, tmp_path: Path) -> None:
    server = Server(studio, tmp_path, keys_required=True)
    _, ours = server.store.create_key("ours", takes=1)
    _, theirs = server.store.create_key("theirs", requests_per_minute=3)
    with listening(server.app) as url:
        nobody, we, they = (
            openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) for key in ("lt_x_y", ours, theirs)
        )
        with nobody, we, they:
            with pytest.raises(openai.AuthenticationError):
                nobody.videos.list()
            video = create(we, seconds=LONG)
            with pytest.raises(openai.RateLimitError, match="1 videos in the making"):
                we.videos.create(prompt="another")
            with pytest.raises(openai.NotFoundError):
                they.videos.retrieve(video.id)
            assert they.videos.list().data == []
            assert they.videos.list().data == []
            with pytest.raises(openai.RateLimitError) as limited:
                they.videos.list()
            assert int(limited.value.response.headers["retry-after"]) >= 1
            we.videos.delete(video.id)
    server.close()


def test_what_was_unfinished_is_made_after_a_restart(studio: Studio, tmp_path: Path) -> None:
    first = Server(studio, tmp_path)
    with listening(first.app) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0) as client:
        done = make(client, extra_body={"seed": 5})
        content = client.videos.download_content(done.id).read()
        held = client.videos.create(prompt="a red car", seconds="4", extra_body={"seed": 6})
        first.host.session(first.store.video(held.id).session_id or "").do(Pause())
        assert first.jobs.assets_in_use() == set()
        asset = httpx.post(f"{url}/api/assets", content=png()).json()["id"]
        request = {"prompt": "a", "seconds": 4, "input_reference": {"file_id": asset}}
        pictured = httpx.post(f"{url}/v1/videos", json=request).json()["id"]
        first.host.session(first.store.video(pictured).session_id or "").do(Pause())
        assert first.jobs.assets_in_use() == {asset}  # it is not swept before the video is made
    first.close()
    again = Server(studio, tmp_path)
    with listening(again.app) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0) as client:
        assert client.videos.poll(held.id).status == "completed"
        assert client.videos.poll(pictured).status == "completed"
        assert again.jobs.assets_in_use() == set()
        assert client.videos.download_content(done.id).read() == content
        fresh = client.videos.create_and_poll(prompt="a red car", seconds="4", extra_body={"seed": 6})
        same = (client.videos.download_content(video).read() for video in (held.id, fresh.id))
        assert next(same) == next(same)
        assert extend(client, done.id).status == "completed"
    again.close()


def test_a_row_of_another_version_fails_by_name_and_hinders_nothing(
    studio: Studio, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(studio, tmp_path)
    with listening(server.app) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="unused") as client:
        old, good = begin_and_hold(client, server), begin_and_hold(client, server)
        client.videos.delete(create(client).id)
    server.close()
    store = Store(tmp_path / "store.db")
    store.update_video(old.id, request={"opening": {"version": 1, "prompt": "a tiger"}})
    store.update_video(good.id, request=store.video(good.id).request | {"num_chunks": 1, "expected_chunks": 1})
    store.close()
    server = Server(studio, tmp_path)
    with listening(server.app) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="unused") as client:
        video = client.videos.retrieve(old.id)
        assert video.status == "failed"
        assert video.error is not None
        assert "another version of longtake (opening.version" in video.error.message
        assert old.id in caplog.text
        assert httpx.post(f"{url}/v1/videos/{old.id}/remix", json={"prompt": "night"}).status_code == 409
        assert client.videos.poll(good.id).status == "completed"
    server.close()


def test_a_video_is_finished_once_the_store_and_the_disk_are_there_again(
    client: openai.OpenAI, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = OperationalError("update", {}, Exception("database is locked"))
    faults = {"update": 3, "write": 2}
    update, write = server.store.update_video, jobs.write_mp4

    def update_later(video_id: str, **changes: Any) -> None:
        if changes.get("status") == "completed" and faults["update"]:
            faults["update"] -= 1
            raise locked
        update(video_id, **changes)

    def write_later(*given: Any) -> Path:
        if faults["write"]:
            faults["write"] -= 1
            raise MediaError("no space left on device")
        return write(*given)

    monkeypatch.setattr(jobs, "CHECK_S", 0.05)
    monkeypatch.setattr(server.store, "update_video", update_later)
    monkeypatch.setattr(jobs, "write_mp4", write_later)
    video = make(client)
    assert (video.status, faults) == ("completed", {"update": 0, "write": 0})


def test_a_create_while_the_store_is_locked_is_told_to_come_again_and_leaves_nothing(
    client: openai.OpenAI, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(_: VideoRow) -> VideoRow:
        raise OperationalError("insert", {}, Exception("database is locked"))

    before = len(list(server.host.sessions()))
    monkeypatch.setattr(server.store, "add_video", locked)
    with pytest.raises(openai.InternalServerError, match="try again later") as refused:
        create(client)
    assert refused.value.status_code == 503
    assert len(list(server.host.sessions())) == before


def test_a_video_whose_chunks_cannot_be_stored_is_begun_again(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, left = EventLog.extend, [2]

    def full(self: EventLog, records: Sequence[Record]) -> None:
        if any(record.payload for record in records) and left[0]:
            left[0] -= 1
            raise MediaError("no space left on device")
        right(self, records)

    monkeypatch.setattr(jobs, "CHECK_S", 0.05)
    monkeypatch.setattr(EventLog, "extend", full)
    assert make(client).status == "completed"
    assert left == [0]

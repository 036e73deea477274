"""The client, against a server: what an application would do with it."""

import asyncio
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from longtake.client import AsyncClient, Client, RequestError
from longtake.core.errors import InputError
from longtake.media.clips import read_video
from longtake.serve.app import ServerSettings, create_app
from longtake.serve.guard import AccessPolicy
from tests.serve.serving import listening, noise
from tests.tiny import PRESET, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(tmp_path_factory.mktemp("model") / "m"))


@pytest.fixture(scope="module")
def url(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with listening(create_app(ServerSettings(folder=tmp_path_factory.mktemp("kept"), model=model))) as url:
        yield url


class Relay(socketserver.ThreadingTCPServer):
    """Passes connections on to a server, and cuts the second one (the first WebSocket) after some bytes."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, limit: int) -> None:
        self.port, self.limit = port, limit
        self.num_connections = 0
        super().__init__(("127.0.0.1", 0), _Passing)


class _Passing(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        relay = self.server
        assert isinstance(relay, Relay)
        relay.num_connections += 1
        left = relay.limit if relay.num_connections == 2 else 2**40
        with socket.create_connection(("127.0.0.1", relay.port)) as beyond:

            def upwards() -> None:
                with suppress(OSError):  # the client has gone
                    while data := self.request.recv(65536):
                        beyond.sendall(data)

            threading.Thread(target=upwards, daemon=True).start()
            while left > 0 and (data := beyond.recv(min(left, 65536))):
                self.request.sendall(data)
                left -= len(data)
            self.request.shutdown(socket.SHUT_RDWR)


def test_a_take_is_watched_directed_and_saved(url: str, tmp_path: Path) -> None:
    with Client(url) as client:
        take = client.take("a tiger walks", seed=3)
        accepted, seen = take.cue(change="night falls", at=2), []
        for chunk in take:
            seen.append(chunk)
            if chunk.index == 3:
                break
        assert [chunk.index for chunk in seen] == [0, 1, 2, 3]
        assert [chunk.event.num_frames for chunk in seen] == [9, 12, 12, 12]
        assert [cue.cue for cue in seen[2].applied] == [accepted.cue]
        assert accepted.due_at.index == 2
        assert "night" in seen[2].prompt
        assert "night" not in seen[1].prompt
        assert seen[1].start_s == 9 / take.opened.fps
        pictures = torch.cat([chunk.pictures() for chunk in seen])
        assert pictures.shape == (45, PRESET.size.height, PRESET.size.width, 3)
        saved = read_video(take.save(tmp_path / "take.mp4"), PRESET.size, PRESET.fps)
        assert saved.equal(pictures), "an mp4 is the same stream in another container"
        script = take.script()
        assert (script.opening.prompt, script.chunks) == ("a tiger walks", 4)
        assert [cue.chunk for cue in script.cues] == [2]
        assert len(take.save(tmp_path / "take.gif", scale=2).read_bytes()) > 1000
        take.close()
        assert [chunk.index for chunk in client.watch(take.watch_id or "")][:4] == [0, 1, 2, 3]
        take.delete()
        with pytest.raises(RequestError) as refused:
            client.watch(take.id)
        assert refused.value.code == "not_found"


def test_a_take_goes_back_pauses_and_begins_with_a_picture(url: str, tmp_path: Path) -> None:
    noise(PRESET.size.width, PRESET.size.height).save(tmp_path / "first.png")
    with Client(url) as client:
        take = client.take("a tiger walks", image=tmp_path / "first.png", seed=1)
        chunks = iter(take)
        first, second = next(chunks), next(chunks)
        head = take.retake(first.event.chunk, prompt="a red boat")
        assert (head.chunk, head.branch) == (first.event.chunk, 1)
        other = next(chunk for chunk in chunks if chunk.event.branch == 1)
        assert other.event.parent == first.event.chunk == second.event.parent
        assert other.prompt == "a red boat"
        take.pause()
        take.resume()
        cue = take.cue(seed=5, at=40)
        assert take.cancel(cue.cue).cue == cue.cue
        assert take.rewind(None).chunk is None
        assert next(chunk for chunk in chunks if chunk.event.branch == 2).event.parent is None
        take.close()


def test_several_takes_at_once_without_threads(url: str) -> None:
    async def watched(client: AsyncClient, seed: int) -> list[int]:
        take, seen = await client.take("a tiger walks", seed=seed), list[int]()
        async for chunk in take:
            seen.append(chunk.index)
            if chunk.index == 2:
                await take.close()
        return seen

    async def both() -> tuple[list[int], list[int]]:
        async with AsyncClient(url) as client:
            return await asyncio.gather(watched(client, 1), watched(client, 2))

    for seen in asyncio.run(both()):
        assert seen[:3] == [0, 1, 2]
        assert seen == sorted(set(seen))


def test_a_lost_connection_is_taken_up_again_and_every_chunk_comes_once(url: str) -> None:
    with Client(url) as client:
        take = client.take("a tiger walks", seed=9)
        for chunk in take:
            if chunk.index == 3:
                break
        take.close()
        whole = [(chunk.index, chunk.frames) for chunk in take]
    size = sum(len(data) for _, frames in whole for data in frames)
    with Relay(int(url.rpartition(":")[2]), limit=size // 2) as relay:
        threading.Thread(target=relay.serve_forever, daemon=True).start()
        with Client(f"http://127.0.0.1:{relay.server_address[1]}") as client:
            again = [(chunk.index, chunk.frames) for chunk in client.watch(take.watch_id or "")]
        relay.shutdown()
    assert again == whole
    assert relay.num_connections == 3, "one for the request, one that was cut, one that went on"


def test_mistakes_are_told_before_or_after_they_are_sent(url: str) -> None:
    with Client(url) as client:
        with pytest.raises(InputError, match="steps"):
            client.take("a tiger", steps=0)
        with pytest.raises(InputError, match="sed"):
            client.take("a tiger", sed=3)
        take = client.take("a tiger")
        with pytest.raises(InputError, match="at"):
            take.cue(change="night falls", at=-1)
        with pytest.raises(RequestError, match="not waiting"):
            take.cancel(7)
        with pytest.raises(RequestError, match="no chunks yet"):
            client.take("a tiger").save("x.mp4")
        take.delete()
        with pytest.raises(RequestError) as refused:
            list(take)
        assert refused.value.code == "not_found"


def test_a_key_is_sent_with_everything(model: str, tmp_path: Path) -> None:
    access = AccessPolicy(names=("127.0.0.1",), keys_required=True)
    app = create_app(ServerSettings(folder=tmp_path / "kept", model=model, access=access))
    key = app.state.store.create_key("k")[1]
    with listening(app) as url:
        with Client(url, key) as client:
            take = client.take("a tiger")
            assert next(iter(take)).index == 0
            take.close()
        with Client(url) as client, pytest.raises(RequestError, match="a key is needed"):
            client.take("a tiger")


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    with Client(nowhere) as client, pytest.raises(RequestError, match=nowhere):
        client.take("a tiger")

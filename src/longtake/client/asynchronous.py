"""Asynchronous connection to a server, its takes and their chunks."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from weakref import WeakSet

import anyio
import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from longtake.core.cue import input_errors
from longtake.core.errors import LongtakeError
from longtake.core.shapes import Pictures
from longtake.media.live import pictures_of
from longtake.serve.messages import (
    AcceptedCue,
    Applied,
    Cancel,
    Cancelled,
    ChunkEvent,
    Close,
    Command,
    CueCommand,
    Done,
    Ended,
    Event,
    Frame,
    HeadEvent,
    Message,
    Numbered,
    Open,
    Opened,
    Pause,
    Refused,
    Resume,
    Retake,
    RewindCommand,
    SeenCommand,
    commands,
    events,
)
from longtake.studio.script import Script

PATIENCE_S = 30.0  # time for which a lost connection is tried again
RETRY_S = 0.25  # interval between tries

E = TypeVar("E", bound=Message)


class RequestError(LongtakeError, RuntimeError):
    """The server refused a request, or ended a take because of an error. `code` is the server's name of the reason."""

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class RemoteChunk:
    """A complete chunk of a take."""

    event: ChunkEvent
    frames: tuple[bytes, ...]  # H.264 of each frame (Annex B); the first is a key frame
    applied: tuple[Applied, ...]  # cues that take effect with this chunk
    fps: float

    @property
    def index(self) -> int:
        """Index of the chunk on its branch."""
        return self.event.index

    @property
    def prompt(self) -> str:
        return self.event.prompt

    @property
    def start_s(self) -> float:
        """Time of the first frame, in seconds since the beginning of the take."""
        return self.event.start_frame / self.fps

    def pictures(self) -> Pictures:
        """Decode the frames to uint8 RGB, [frames, height, width, 3]."""
        return pictures_of(self.frames)


class _Log:
    """The part of a take's log that has been read; it puts chunks together."""

    def __init__(self, fps: float) -> None:
        self.fps = fps
        self.newest = -1  # number of the newest entry
        self.ended = False
        self._pending: dict[int, tuple[ChunkEvent, list[bytes], list[Applied]]] = {}

    def read(self, message: str | bytes) -> RemoteChunk | None:
        """Read a message of the server; returns the chunk that it completes.

        Raises:
            RequestError: the take cannot be watched, or has failed.
        """
        event, payload = _unpacked(message)
        if isinstance(event, Numbered):
            self.newest = event.n
        match event:
            case ChunkEvent():
                self._pending[event.chunk] = (event, [], [])
            case Applied():
                self._pending[event.chunk][2].append(event)
            case Frame():
                made, frames, applied = self._pending[event.chunk]
                frames.append(payload)
                if len(frames) == made.num_frames:
                    del self._pending[event.chunk]
                    return RemoteChunk(event=made, frames=tuple(frames), applied=tuple(applied), fps=self.fps)
            case Ended(why="failed" | "lost"):
                raise RequestError(event.message or f"the take is {event.why}", event.why)
            case Ended():
                self.ended = True
            case Refused(event_id=None):
                raise RequestError(event.message, event.code)
            case _:
                pass
        return None


class AsyncRemoteTake:
    """A live take on a server. Iteration yields its chunks until it ends; other methods direct it meanwhile."""

    def __init__(self, client: "AsyncClient", take_id: str, watch_id: str | None, opened: Opened) -> None:
        self._client = client
        self.id = take_id  # grants the right to direct, unless it is a watch id
        self.watch_id = watch_id  # grants the right to watch
        self.opened = opened
        self._newest: int | None = None  # number of the newest complete chunk

    def __aiter__(self) -> AsyncGenerator[RemoteChunk]:
        """Iterate over complete chunks in order of generation, each once, over any number of connections.

        A chunk counts as seen when the next one is asked for: generation runs at most `opened.lead` chunks ahead.

        Raises:
            RequestError: there is no such take, it failed, or the server cannot be reached any more.
        """
        chunks = self._chunks()
        self._client.iterations.add(chunks)
        return chunks

    async def _chunks(self) -> AsyncGenerator[RemoteChunk]:
        log, lost_s = _Log(self.opened.fps), None
        while True:
            try:
                async with self._client.socket(f"api/takes/{self.id}/live?after={log.newest}") as socket:
                    async for message in socket:
                        lost_s = None
                        if (chunk := log.read(message)) is not None:
                            self._newest = chunk.event.chunk
                            yield chunk
                            await socket.send(SeenCommand(chunk=chunk.event.chunk).model_dump_json())
                        if log.ended:
                            return
            except (ConnectionClosed, InvalidStatus, OSError) as error:
                if isinstance(error, InvalidStatus) and error.response.status_code < 500:
                    raise RequestError(f"the server answered {error.response.status_code}") from error
                lost_s = lost_s or anyio.current_time()
                if anyio.current_time() - lost_s > PATIENCE_S:
                    raise RequestError(f"the server at {self._client.url} cannot be reached") from error
            await anyio.sleep(RETRY_S)

    async def cue(self, **fields: Any) -> AcceptedCue:
        """Change the take at the next chunk, or at chunk `at` or time `at_s`; `fields` are those of `CueCommand`.

        Raises:
            InputError: a field is unknown or out of range.
            RequestError: the server refuses the cue.
        """
        with input_errors():
            command = CueCommand(**fields)
        return await self._do(command, AcceptedCue)

    async def cancel(self, cue: int) -> Cancelled:
        """Cancel a cue that has not been applied, by `AcceptedCue.cue`."""
        return await self._do(Cancel(cue=cue), Cancelled)

    async def rewind(self, to: int | None) -> HeadEvent:
        """Continue after an earlier chunk (`ChunkEvent.chunk`), as before; None: from the beginning."""
        return await self._do(RewindCommand(to=to), HeadEvent)

    async def retake(self, after: int | None, **fields: Any) -> HeadEvent:
        """Continue after a chunk on a new branch; `fields` change the prompt or settings, as in `cue`."""
        with input_errors():
            command = Retake(after=after, **fields)
        return await self._do(command, HeadEvent)

    async def pause(self) -> None:
        await self._do(Pause(), Done)

    async def resume(self) -> None:
        await self._do(Resume(), Done)

    async def close(self) -> None:
        """End the take. Its chunks can still be watched and saved."""
        await self._do(Close(), Ended)

    async def delete(self) -> None:
        """End the take and delete it on the server."""
        await self._client.request("DELETE", f"api/takes/{self.id}")

    async def script(self) -> Script:
        """Return the script that reproduces the take up to its newest complete chunk."""
        return Script.model_validate_json((await self._path("json")).content)

    async def save(self, path: str | Path, *, scale: int = 1) -> Path:
        """Write the take up to its newest complete chunk to a file (.mp4, .gif or .webp), enlarged `scale` times."""
        path = Path(path)
        answer = await self._path(path.suffix.removeprefix("."), scale=scale)
        await anyio.Path(path).write_bytes(answer.content)
        return path

    async def _path(self, kind: str, **params: int) -> httpx.Response:
        chunk = self._newest
        if chunk is None:
            tree = (await self._client.request("GET", f"api/takes/{self.id}")).json()["tree"]
            if not tree:
                raise RequestError("the take has no chunks yet", "conflict")
            chunk = tree[-1]["chunk"]
        return await self._client.request("GET", f"api/takes/{self.id}/paths/{chunk}.{kind}", params=params)

    async def _do(self, command: Command, answer: type[E]) -> E:
        body = commands.dump_json(command)
        headers = {"Content-Type": "application/json"}
        found = await self._client.request("POST", f"api/takes/{self.id}/commands", content=body, headers=headers)
        return answer.model_validate_json(found.content)


class AsyncClient:
    """Connection to a server; an asynchronous context manager."""

    def __init__(self, url: str = "http://127.0.0.1:8000", key: str | None = None, *, timeout_s: float = 60.0) -> None:
        """Prepare a connection.

        Args:
            url: address of the server, with the path under which a proxy publishes it.
            key: key of the server, if it asks for one.
            timeout_s: time that an answer may take.
        """
        self.url = url.rstrip("/") + "/"
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = httpx.AsyncClient(base_url=self.url, headers=self._headers, timeout=timeout_s)
        self.iterations = WeakSet[AsyncGenerator[RemoteChunk]]()  # closed with the client, if they were left early

    async def __aenter__(self) -> "AsyncClient":
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for chunks in list(self.iterations):
            await chunks.aclose()
        await self._http.__aexit__(kind, error, trace)

    async def take(
        self,
        prompt: str,
        *,
        image: str | Path | None = None,
        clip: str | Path | None = None,
        **fields: Any,
    ) -> AsyncRemoteTake:
        """Begin a take.

        Args:
            prompt: what it shows.
            image: picture file that it begins with.
            clip: video file that it continues.
            fields: further fields of `Open`: seed, steps, guidance, negative_prompt, source, strength.

        Raises:
            InputError: a field is unknown or out of range.
            RequestError: the server refuses the request.
        """
        given = {name: path for name, path in (("image", image), ("clip", clip)) if path is not None}
        uploads = {name: await self.upload(path) for name, path in given.items()}
        with input_errors():
            opening = Open(prompt=prompt, **uploads, **fields)
        answer = await self.request("POST", "api/takes", json=opening.model_dump(mode="json"))
        told = answer.json()
        return AsyncRemoteTake(self, told["id"], told["watch"], Opened.model_validate(told["opened"]))

    async def watch(self, take_id: str) -> AsyncRemoteTake:
        """Return a take that somebody has begun, by its id or watch id."""
        told = (await self.request("GET", f"api/takes/{take_id}")).json()
        return AsyncRemoteTake(self, take_id, None, Opened.model_validate(told["opened"]))

    async def upload(self, path: str | Path) -> str:
        """Upload a picture or a video; returns its id, for the fields `image` and `clip`."""
        content = await anyio.Path(path).read_bytes()
        return (await self.request("POST", "api/assets", content=content)).json()["id"]

    async def request(self, method: str, path: str, **rest: Any) -> httpx.Response:
        """Send a request; `path` is below the server's address and `rest` as `httpx.AsyncClient.request` takes it.

        Raises:
            RequestError: the server cannot be reached, or refuses the request.
        """
        try:
            answer = await self._http.request(method, path, **rest)
        except httpx.TransportError as error:
            raise RequestError(
                f"the server at {self.url} cannot be reached: {error or type(error).__name__}"
            ) from error
        if answer.is_error:
            said = answer.json()["error"] if "json" in answer.headers.get("content-type", "") else {}
            raise RequestError(said.get("message", f"the server answered {answer.status_code}"), said.get("code"))
        return answer

    def socket(self, path: str) -> connect:
        """Open a WebSocket below the server's address."""
        url = httpx.URL(self.url).join(path)
        scheme = "wss" if url.scheme == "https" else "ws"
        address = str(url.copy_with(scheme=scheme))
        # a reader that stops leaves messages unread, and then no answer to its farewell can be read
        return connect(address, additional_headers=self._headers, max_size=None, close_timeout=0.5)


def _unpacked(message: str | bytes) -> tuple[Event, bytes]:
    """Split a WebSocket message into its event and its payload (a frame's H.264, or nothing)."""
    if isinstance(message, str):
        return events.validate_json(message), b""
    stop = 4 + int.from_bytes(message[:4], "little")
    return events.validate_json(message[4:stop]), message[stop:]

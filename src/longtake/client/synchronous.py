"""The same as `asynchronous`, for code that is not: a thread runs it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from longtake.client.asynchronous import AsyncClient, AsyncRemoteTake, RemoteChunk
from longtake.serve.messages import (
    AcceptedCue,
    Cancelled,
    HeadEvent,
    Opened,
)
from longtake.studio.script import Script

T = TypeVar("T")


class RemoteTake:
    """As `AsyncRemoteTake`, for code that is not asynchronous."""

    def __init__(self, take: AsyncRemoteTake, portal: BlockingPortal) -> None:
        self._take = take
        self._portal = portal

    @property
    def id(self) -> str:
        return self._take.id

    @property
    def watch_id(self) -> str | None:
        return self._take.watch_id

    @property
    def opened(self) -> Opened:
        return self._take.opened

    def __iter__(self) -> Iterator[RemoteChunk]:
        chunks = self._take.__aiter__()
        try:
            while True:
                try:
                    yield self._portal.call(_following, chunks)
                except StopAsyncIteration:
                    return
        finally:
            with suppress(RuntimeError):  # the client is closed, and its connections with it
                self._portal.call(chunks.aclose)

    def cue(self, **fields: Any) -> AcceptedCue:
        return self._call(self._take.cue, **fields)

    def cancel(self, cue: int) -> Cancelled:
        return self._call(self._take.cancel, cue)

    def rewind(self, to: int | None) -> HeadEvent:
        return self._call(self._take.rewind, to)

    def retake(self, after: int | None, **fields: Any) -> HeadEvent:
        return self._call(self._take.retake, after, **fields)

    def pause(self) -> None:
        self._call(self._take.pause)

    def resume(self) -> None:
        self._call(self._take.resume)

    def close(self) -> None:
        self._call(self._take.close)

    def delete(self) -> None:
        self._call(self._take.delete)

    def script(self) -> Script:
        return self._call(self._take.script)

    def save(self, path: str | Path, *, scale: int = 1) -> Path:
        return self._call(self._take.save, path, scale=scale)

    def _call(self, method: Callable[..., Awaitable[T]], *args: Any, **rest: Any) -> T:
        return self._portal.call(partial(method, *args, **rest))


class Client:
    """As `AsyncClient`, for code that is not asynchronous; a context manager."""

    def __init__(self, url: str = "http://127.0.0.1:8000", key: str | None = None, *, timeout_s: float = 60.0) -> None:
        self._stack = ExitStack()
        self._portal = self._stack.enter_context(start_blocking_portal())
        made = self._portal.call(partial(AsyncClient, url, key, timeout_s=timeout_s))
        self._client = self._stack.enter_context(self._portal.wrap_async_context_manager(made))

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def take(
        self, prompt: str, *, image: str | Path | None = None, clip: str | Path | None = None, **fields: Any
    ) -> RemoteTake:
        begin = partial(self._client.take, prompt, image=image, clip=clip, **fields)
        return RemoteTake(self._portal.call(begin), self._portal)

    def watch(self, take_id: str) -> RemoteTake:
        return RemoteTake(self._portal.call(self._client.watch, take_id), self._portal)


async def _following(chunks: AsyncIterator[RemoteChunk]) -> RemoteChunk:
    return await anext(chunks)

"""Client of a longtake server: takes as iterators of chunks, which are directed while they run.

    with Client("http://127.0.0.1:8000") as client:
        take = client.take("a tiger walks through a forest", seed=3)
        for chunk in take:
            show(chunk.pictures())
            if chunk.index == 2:
                take.cue(change="snow starts to fall")
            if chunk.index == 9:
                break
        take.save("take.mp4")

`AsyncClient` and `AsyncRemoteTake` offer the same with `async for` and `await`; the synchronous classes run them in a
thread. Videos of a fixed length are made through `/v1/videos`, with OpenAI's client. Install `longtake[client]`.
"""

from longtake.client.asynchronous import AsyncClient, AsyncRemoteTake, RemoteChunk, RequestError
from longtake.client.synchronous import Client, RemoteTake

__all__ = ["AsyncClient", "AsyncRemoteTake", "Client", "RemoteChunk", "RemoteTake", "RequestError"]

"""Encoding of the chunks that a session has made, and their entries in its log."""

from dataclasses import dataclass

from torch import Tensor

from longtake.core.shapes import Pictures, PictureSize
from longtake.media.live import ChunkEncoder
from longtake.serve.messages import Applied, ChunkEvent, Frame
from longtake.serve.writer import SessionWriter


@dataclass(frozen=True, kw_only=True)
class Fresh:
    """A chunk that was generated and is not yet in the log."""

    event: ChunkEvent
    pictures: Pictures
    applied: tuple[Applied, ...]
    waited_s: tuple[float, ...]  # seconds that those cues waited for the chunk
    latent: Tensor | None  # kept with the chunk; None: the take follows a source


class Publisher:
    """Encodes a session's chunks and appends them to its log. Used by one thread at a time."""

    def __init__(self, writer: SessionWriter, size: PictureSize, fps: float) -> None:
        self._writer = writer
        self._size = size
        self._fps = fps
        self._encoder: ChunkEncoder | None = None

    def publish(self, fresh: Fresh) -> None:
        """Append a chunk, each frame as soon as it is encoded.

        Raises:
            MediaError: the server cannot store it.
        """
        encoder = self._encoder = self._encoder or ChunkEncoder(self._size, self._fps)
        event = fresh.event
        if fresh.latent is not None:
            self._writer.keep_latents(event.chunk, fresh.latent)
        self._writer.append(event)
        for applied in fresh.applied:
            self._writer.append(applied)
        for k, data in enumerate(encoder.encode(fresh.pictures)):
            self._writer.append(Frame(chunk=event.chunk, k=k, frame=event.start_frame + k), data)

    def release(self) -> None:
        """Release the encoder's memory."""
        self._encoder = None

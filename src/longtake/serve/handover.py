"""What passes between the server and its workers: news of a session on the way out, a session itself on the way in.

All of it is plain values that can be sent to another machine. The server's folder is the only lasting store.
"""

import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from longtake.core.errors import MediaError
from longtake.core.shapes import PictureSize
from longtake.core.vocabulary import Vocabulary
from longtake.media.targets import reason
from longtake.serve.log import Record
from longtake.serve.messages import ChunkEvent, Opened, Status
from longtake.serve.recorded import SessionMeta
from longtake.studio.script import Script
from longtake.studio.timeline import Clock

LATENTS = "latents"
LATENTS_HEADER = struct.Struct("<II")  # number of the chunk, length of the array that follows


@dataclass(frozen=True)
class WorkerInfo:
    """Constant properties of a worker."""

    model: str
    fps: float
    size: PictureSize
    clock: Clock
    strength: float  # the model's default strength for restyling a source, in (0, 1]
    vocabulary: Vocabulary | None  # words that the model was trained on; None: not known
    loras: Mapping[str, float]  # LoRAs that the model was opened with, and their scales
    codec: str  # name of the frames' codec in WebCodecs
    device: str
    node: str  # host name of the machine
    pid: int


@dataclass(frozen=True)
class WorkerLoad:
    """Load of a worker."""

    sessions: int  # number of sessions that run or wait
    room: int  # live sessions that would get a slot at once; -n: n sessions wait
    free_bytes: int  # memory of the device


@dataclass(frozen=True)
class Entries:
    """New log entries of a session, and what has to be kept with them; all of it or nothing becomes known."""

    session_id: str
    records: tuple[Record, ...]
    scripts: Mapping[int, Script]  # scripts that have changed, by branch
    latents: Mapping[int, Tensor]  # latents of new chunks, by chunk


@dataclass(frozen=True)
class StatusNews:
    """New status of a session."""

    session_id: str
    status: Status


@dataclass(frozen=True)
class CountNews:
    """Call of a method of `Counts`."""

    method: str
    args: tuple[object, ...]


WorkerEvent = Entries | StatusNews | CountNews


@dataclass(frozen=True, kw_only=True)
class WaitingCue:
    """Cue of a session's log; `due` is None if it was applied or cancelled, or is on a branch that was left."""

    branch: int
    event_id: str | None
    due: int | None  # index of the chunk that will show it


@dataclass(frozen=True, kw_only=True)
class Handover:
    """A session, for a worker that begins it or goes on with it."""

    facts: SessionMeta
    opened: Opened
    next_n: int  # number of the next log entry
    chunks: Sequence[ChunkEvent] = ()  # chunks of all branches, in order of generation
    branches: Sequence[int | None] = (None,)  # chunk after which each branch begins; None: at the beginning
    scripts: Sequence[Script | None] = (None,)  # script of each branch, with the cues that wait; None: not written yet
    latents: Mapping[int, Tensor] | None = None  # latents by chunk; None: some are missing, so chunks are made again
    cues: Sequence[WaitingCue] = ()  # cues in order of their numbers
    paused: bool = False
    rebuild: bool = False  # whether the next chunk's memory comes from the latents in the window, see `Studio.resume`
    parent: tuple[str, int] | None = None  # session and chunk that its only branch goes on from


class LatentsFile:
    """Latents of a session's chunks in one file beside its log, from which another worker goes on."""

    def __init__(self, folder: Path) -> None:
        """Open the file, if there is one; what a crash cut off at its end is removed."""
        self._path = folder / LATENTS
        if self._path.exists():
            with self._path.open("r+b") as file:
                file.truncate(max((stop for _, _, stop in _arrays(self._path.read_bytes())), default=0))

    def append(self, latents: Mapping[int, Tensor]) -> None:
        """Add the latents of chunks.

        Raises:
            MediaError: the file cannot be written.
        """
        if not latents:
            return
        data = b""
        for chunk, latent in latents.items():
            array = io.BytesIO()
            np.save(array, latent.numpy(), allow_pickle=False)
            data += LATENTS_HEADER.pack(chunk, array.tell()) + array.getvalue()
        try:
            with self._path.open("ab") as file:
                file.write(data)
        except OSError as error:
            raise MediaError(f"cannot write {self._path}: {reason(error)}") from error

    def read(self) -> dict[int, Tensor]:
        """Read the latents by chunk; of one that was made twice, the later."""
        if not self._path.exists():
            return {}
        data = self._path.read_bytes()
        return {
            chunk: torch.from_numpy(np.load(io.BytesIO(data[start:stop]), allow_pickle=False))
            for chunk, start, stop in _arrays(data)
        }

    def remove(self) -> None:
        """Delete the file of a session that has ended."""
        self._path.unlink(missing_ok=True)


def _arrays(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the chunk, start and stop of each whole array in the bytes of a file of latents."""
    at = 0
    while at + LATENTS_HEADER.size <= len(data):
        chunk, length = LATENTS_HEADER.unpack_from(data, at)
        start, at = at + LATENTS_HEADER.size, at + LATENTS_HEADER.size + length
        if at <= len(data):
            yield chunk, start, at

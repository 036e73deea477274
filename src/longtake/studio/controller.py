"""The making of a take: what is planned, cancelled and finished, for the stream of one take or a server of many.

A chunk is made in three parts: `plan` fixes what it is asked for and takes what it needs of the source, the engine
makes it, `finish` moves the take's head. A cue that comes in between cancels it once: it is planned again, so that the
cue is seen at once.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch

from longtake.core.cue import Cue
from longtake.core.shapes import Pictures
from longtake.nets.light_codec import CodecState
from longtake.sample.sampler import ChunkResult
from longtake.studio.commands import Abandon, Advance, Command, PlanChunk, Settle, Shorten
from longtake.studio.engine import ChunkJob, Engine
from longtake.studio.session import Answer, TakeState, apply, upcoming
from longtake.studio.sources import Source, checked_pictures
from longtake.studio.timeline import Node


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """Some seconds of a take, as soon as they are made."""

    index: int
    frames: Pictures  # uint8 [frames, height, width, 3]
    start_s: float
    prompt: str
    cue: Cue | None  # the last of those that this chunk is the first to show
    timings: dict[str, float]  # seconds by what was done


class NoChunk(Enum):
    """Why a take has no next chunk."""

    CANCELLED = "cancelled"  # by a cue, or because the take was stopped
    ENDED = "ended"  # its source gives no more pictures


class TakeController:
    """One take while its chunks are made. Cues and `stop` may come from any thread."""

    def __init__(self, engine: Engine, state: TakeState, source: Source | None = None) -> None:
        """Args: source: a video that the take follows, one chunk behind it."""
        self.engine = engine
        self.source = source
        self._state = state
        self._lock = threading.Lock()
        self._stopped = False
        self._was_cancelled = False  # the last attempt at a chunk, by a cue: the next attempt must not be
        self._encoder = CodecState()  # of the source
        self._encoder_after = CodecState()  # the planned chunk
        self._taken: Pictures | None = None  # of the source, not yet in a finished chunk

    @property
    def state(self) -> TakeState:
        """The whole bookkeeping, an immutable value."""
        return self._state

    @property
    def ready(self) -> bool:
        """Whether a chunk can be made without waiting for the source."""
        clock = self._state.clock
        frames = clock.opening_frames if self._state.head is None else clock.chunk_frames
        return self.source is None or self._taken is not None or self.source.ready(frames)

    @property
    def layout(self) -> tuple[object, ...] | None:
        """Takes that share one can have their next chunks made in one step; None: this one's is made alone."""
        return None if self._was_cancelled else self.engine.layout(upcoming(self._state))

    def apply(self, command: Command) -> Answer:
        """Follow a command; raises InputError where it cannot be followed."""
        with self._lock:
            self._state, answer = apply(self._state, command)
        return answer

    def stop(self) -> None:
        """Make nothing more of this take, and cancel the chunk that is being made, if that can still be done."""
        self._stopped = True

    def plan(self) -> ChunkJob | None:
        """Begin the next chunk; None where the source has ended. What was cancelled before is not cancelled again."""
        node = self.apply(PlanChunk(settled=self._was_cancelled))
        assert isinstance(node, Node)
        if self.source is None:
            return ChunkJob(node=node, should_continue=self.should_continue)
        try:
            pictures = self._pictures(self.source, node.num_frames)
            if pictures is None:
                self.abandon()
                return None
            wanted = node.num_frames
            if len(pictures) < wanted:
                shortened = self.apply(Shorten(frames=len(pictures)))
                assert isinstance(shortened, Node)
                node = shortened
            still = pictures[-1:].expand(wanted - len(pictures), -1, -1, -1)  # after the end its last picture stays
            opens = node.parent is None or node.plan.transition == "cut"
            state = CodecState() if opens else self._encoder
            latent, self._encoder_after = self.engine.encode(torch.cat((pictures, still)), state)
        except BaseException:
            self.abandon()
            raise
        return ChunkJob(node=node, source=latent, should_continue=self.should_continue)

    def _pictures(self, source: Source, num: int) -> Pictures | None:
        """The next pictures of the source, fewer at its end; those of a chunk that was not made come again."""
        missing = num - (0 if self._taken is None else len(self._taken))
        if missing > 0 and (more := source.take(missing)) is not None:
            more = checked_pictures(more, self.engine.size)
            self._taken = more if self._taken is None else torch.cat((self._taken, more))
        return None if self._taken is None else self._taken[:num]

    def should_continue(self, done: bool) -> bool:
        """Whether the planned chunk is still wanted. Once its denoising is done, no cue cancels it any more."""
        if self._stopped:
            return False
        if not done:
            return not self._state.overtaken
        self.apply(Settle())
        return self._state.settled

    def abandon(self) -> None:
        """Give the planned chunk up; its cues wait again."""
        self.apply(Abandon())

    def finish(self, node: Node, result: ChunkResult | None) -> Chunk | NoChunk:
        """Move the head to the chunk that was made, or give it up where it was cancelled."""
        self._was_cancelled = result is None
        if result is None:
            self.abandon()
            return NoChunk.CANCELLED
        self._encoder = self._encoder_after
        if self._taken is not None:
            self._taken = self._taken[node.num_frames :] if len(self._taken) > node.num_frames else None
        self.apply(Advance())
        return Chunk(
            index=node.idx,
            frames=result.pictures[: node.num_frames],
            start_s=node.start_frame / self._state.clock.fps,
            prompt=node.in_force.prompt,
            cue=node.cues[-1][1] if node.cues else None,
            timings=result.timings,
        )

    def next_chunk(self) -> Chunk | NoChunk:
        """Make one chunk after the head; one that a cue cancels is made again under the cue.

        Raises:
            MediaError, DeviceError: as `Engine.make`. The take stands where it stood.
        """
        (chunk,) = make_chunks([self])
        if chunk is NoChunk.CANCELLED and not self._stopped:
            (chunk,) = make_chunks([self])
        return chunk


def make_chunks(controllers: Sequence[TakeController]) -> list[Chunk | NoChunk]:
    """One attempt at the next chunk of each of several takes on one engine, in one step.

    Args:
        controllers: of one `layout`; one whose layout has changed meanwhile is cancelled, and is made alone next.

    Raises:
        MediaError, DeviceError: as `Engine.make`. All takes stand where they stood.
    """
    jobs: dict[TakeController, ChunkJob] = {}
    try:
        for controller in controllers:
            if (job := controller.plan()) is not None:
                jobs[controller] = job
        results = controllers[0].engine.make(list(jobs.values())) if jobs else []
    except BaseException:
        for controller in jobs:
            controller.abandon()
        raise
    chunks = {c: c.finish(job.node, result) for (c, job), result in zip(jobs.items(), results, strict=True)}
    return [chunks.get(controller, NoChunk.ENDED) for controller in controllers]

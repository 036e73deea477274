"""Control of takes while their chunks are made, for the stream of one take or a server of many.

A chunk is made in three parts: `plan` fixes its request and takes pictures from the source, the engine makes it, and
`finish` moves the take's head. A cue that arrives in between cancels the chunk once: it is planned again, so that the
cue shows without delay.
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
    """Finished chunk of a take."""

    index: int
    frames: Pictures  # uint8 [frames, height, width, 3]
    start_s: float
    prompt: str
    cue: Cue | None  # last of the cues that this chunk is the first to show
    timings: dict[str, float]  # seconds by part, see `ChunkResult`


class NoChunk(Enum):
    """Reason for a take to have no next chunk."""

    CANCELLED = "cancelled"  # the chunk was cancelled by a cue or by `stop`
    ENDED = "ended"  # the source has no more pictures


class TakeController:
    """Controller of one take while its chunks are made; cues and `stop` may come from any thread."""

    def __init__(self, engine: Engine, state: TakeState, source: Source | None = None) -> None:
        """Control the take of `state`, which follows `source`, if given, one chunk behind it."""
        self.engine = engine
        self.source = source
        self._state = state
        self._lock = threading.Lock()
        self._stopped = False
        self._was_cancelled = False  # whether a cue cancelled the last attempt; then no cue may cancel the next one
        self._encoder = CodecState()  # encoder state of the source, before the planned chunk
        self._encoder_after = CodecState()  # encoder state of the source, after the planned chunk
        self._taken: Pictures | None = None  # pictures taken from the source that no finished chunk has used

    @property
    def state(self) -> TakeState:
        """State of the take, an immutable value."""
        return self._state

    @property
    def ready(self) -> bool:
        """Whether a chunk can be made without waiting for the source."""
        clock = self._state.clock
        frames = clock.opening_frames if self._state.head is None else clock.chunk_frames
        return self.source is None or self._taken is not None or self.source.ready(frames)

    @property
    def layout(self) -> tuple[object, ...] | None:
        """Key under which takes can have their next chunks made in one step; None: this one needs its own step."""
        return None if self._was_cancelled else self.engine.layout(upcoming(self._state, self.engine.threads()))

    def apply(self, command: Command) -> Answer:
        """Apply a command and return its answer.

        Raises:
            InputError: the command is not possible in the present state.
        """
        with self._lock:
            self._state, answer = apply(self._state, command)
        return answer

    def stop(self) -> None:
        """Stop the take, and cancel the chunk that is being made if possible."""
        self._stopped = True

    def plan(self) -> ChunkJob | None:
        """Plan the next chunk; None if the source has ended. A chunk that was cancelled is not cancelled again."""
        node = self.apply(PlanChunk(settled=self._was_cancelled, threads=self.engine.threads()))
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
            # After the source's end, its last picture is repeated.
            still = pictures[-1:].expand(wanted - len(pictures), -1, -1, -1)
            opens = node.parent is None or node.plan.transition == "cut"
            state = CodecState() if opens else self._encoder
            latent, self._encoder_after = self.engine.encode(torch.cat((pictures, still)), state)
        except BaseException:
            self.abandon()
            raise
        return ChunkJob(node=node, source=latent, should_continue=self.should_continue)

    def _pictures(self, source: Source, num: int) -> Pictures | None:
        """Next pictures of the source, fewer at its end; those of an abandoned chunk are returned again."""
        missing = num - (0 if self._taken is None else len(self._taken))
        if missing > 0 and (more := source.take(missing)) is not None:
            more = checked_pictures(more, self.engine.size)
            self._taken = more if self._taken is None else torch.cat((self._taken, more))
        return None if self._taken is None else self._taken[:num]

    def should_continue(self, done: bool) -> bool:
        """Whether the planned chunk is still wanted; once its denoising is done, no cue can cancel it."""
        if self._stopped:
            return False
        if not done:
            return not self._state.overtaken
        self.apply(Settle())
        return self._state.settled

    def abandon(self) -> None:
        """Abandon the planned chunk; its cues are pending again."""
        self.apply(Abandon())

    def finish(self, node: Node, result: ChunkResult | None) -> Chunk | NoChunk:
        """Move the head to a finished chunk, or abandon it if it was cancelled (`result` is None)."""
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
        """Make the chunk after the head; if a cue cancels it, it is made again under the cue.

        Raises:
            MediaError, DeviceError: as `Engine.make`; the take's head is unchanged.
        """
        (chunk,) = make_chunks([self])
        if chunk is NoChunk.CANCELLED and not self._stopped:
            (chunk,) = make_chunks([self])
        return chunk


def make_chunks(controllers: Sequence[TakeController]) -> list[Chunk | NoChunk]:
    """Attempt to make the next chunks of several takes of one engine, in one step.

    Args:
        controllers: takes of equal `layout`; the chunk of a take whose layout has changed meanwhile is cancelled, and
            gets a step of its own next.

    Raises:
        MediaError, DeviceError: as `Engine.make`; the heads of all takes are unchanged.
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

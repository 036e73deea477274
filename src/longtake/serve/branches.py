"""The takes of a session: a take for each branch, the tree of their chunks, and the cues that were said."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from longtake.core.cue import CueFields
from longtake.core.errors import InputError
from longtake.serve.handover import Handover, WaitingCue
from longtake.serve.messages import AcceptedCue, Applied, Cancelled, ChunkEvent, CueCommand, HeadEvent, Point, Retake
from longtake.serve.publishing import Fresh
from longtake.serve.resuming import tip_of
from longtake.serve.tree import ChunkTree
from longtake.studio.commands import Position
from longtake.studio.controller import Chunk
from longtake.studio.takes import Take


class SaidCue(NamedTuple):
    """A cue that was accepted."""

    branch: int
    number: int  # id of the cue in that branch's take; 0: it waits no more
    event_id: str | None
    said_s: float  # `time.monotonic()` when it was accepted, or when a rebuild has ended since


class Branches:
    """Takes of one session by branch, the last of which goes on. Calls require the session's lock."""

    def __init__(self, handover: Handover, takes: Sequence[Take | None]) -> None:
        """Begin with the chunks and cues of a session so far."""
        take = takes[-1]
        assert take is not None
        self.tree = ChunkTree(handover.chunks)
        self.tip = tip_of(handover)
        self.take: Take | None = take  # None: its memory was released
        self.last = len(takes) - 1
        self._takes = list(takes)
        self._fps = handover.opened.fps
        self._follows = handover.opened.source is not None
        # last chunk to make again, before new ones are made
        self.past = None if take.head is not None or self.tip is None else self.tree[self.tip]
        self._cues = _said(handover.cues, take)  # indexed by the cue's number in the protocol, minus 1

    def __getitem__(self, branch: int) -> Take | None:
        """The take of a branch; None: it was left before the session moved here, or its memory was released."""
        return self._takes[branch] if self._takes else None

    def release(self) -> None:
        """Let go of the takes."""
        self.take, self._takes = None, []

    def rebuilt(self) -> float | None:
        """Fraction of the past chunks that have been made again, in [0, 1]; None if none has to be."""
        if self.past is None or self.take is None:
            return None
        first = self.tree[0].index  # above 0 if the take begins with given pictures
        made = 0 if self.take.head is None else self.take.head.idx + 1 - first
        return round(made / (self.past.index + 1 - first), 2)

    # Commands, while the session runs.

    def cue(self, command: CueCommand, image: Path | None) -> AcceptedCue:
        """Accept a cue. Raises as `Take.cue`."""
        assert self.take is not None
        values = {name: getattr(command, name) for name in CueFields.model_fields}
        receipt = self.take.cue(**values, at=self._when(command), at_s=command.at_s, image=image)
        self._cues.append(SaidCue(self.last, receipt.id, command.event_id, time.monotonic()))
        return AcceptedCue(
            event_id=command.event_id,
            cue=len(self._cues),
            words=command.change or command.prompt,
            accepted_at=_point(receipt.accepted_at),
            due_at=_point(receipt.due_at),
        )

    def cancel(self, number: int, event_id: str | None) -> Cancelled:
        """Cancel a cue.

        Raises:
            InputError: it does not wait on the last branch.
        """
        assert self.take is not None
        if number > len(self._cues) or self._cues[number - 1].branch != self.last:
            raise InputError(f"cue {number} is not waiting on this branch")
        self.take.cancel(self._cues[number - 1].number)
        return Cancelled(event_id=event_id, cue=number)

    def branch_off(self, command: Retake) -> HeadEvent:
        """Go on with a new branch.

        Raises:
            InputError: there is no such chunk, no take can go on from it, or a change is invalid.
        """
        if self.past is not None:
            raise InputError("the take is made again up to where it goes on; go back when that is done")
        after = None if command.after is None else self.tree[command.after]
        take = self[0 if after is None else after.branch]
        if take is None:
            raise InputError("that branch was left before the take moved here; open a take that goes on from it")
        changed = {name: getattr(command, name) for name in command.model_fields_set & CueFields.model_fields.keys()}
        other = take.retake(at=0 if after is None else after.index + 1, **changed)
        assert self.take is not None
        self.take.controller.stop()
        self.take = other
        self._takes.append(other)
        self.last = len(self._takes) - 1
        self.tip = None if after is None else after.chunk
        prompt = command.prompt or other.state.in_force.prompt
        return HeadEvent(event_id=command.event_id, branch=self.last, chunk=self.tip, prompt=prompt)

    def _when(self, cue: CueCommand) -> int | None:
        """Index of the chunk at which a cue is due; None if the cue names none.

        While the past is made again, a cue without chunk and time is due at the first new chunk.

        Raises:
            InputError: the cue is due at a chunk that is being made again.
        """
        if self.past is None:
            return cue.at
        first, end_s = self.past.index + 1, (self.past.start_frame + self.past.num_frames) / self._fps
        if (cue.at is not None and cue.at < first) or (cue.at_s is not None and cue.at_s < end_s):
            raise InputError(f"the take is made again up to {end_s:g} s; a cue is for chunk {first} or later")
        return first if cue.at is None and cue.at_s is None else cue.at

    # Chunks.

    def made_again(self) -> int:
        """Count a chunk of the past that was made again; returns its number."""
        assert self.past is not None
        assert self.take is not None
        assert self.take.head is not None
        index = self.take.head.idx
        again = next(event for event in self.tree.path(self.past.chunk) if event.index == index)
        if index == self.past.index:
            self.past, now = None, time.monotonic()
            self._cues = [said._replace(said_s=now) for said in self._cues]  # latency counts from here
        return again.chunk

    def add(self, made: Chunk) -> Fresh:
        """Add a new chunk, the head of the last branch's take, to the tree."""
        take = self.take
        assert take is not None
        node, now = take.head, time.monotonic()
        assert node is not None
        ours = {(cue.branch, cue.number): i for i, cue in enumerate(self._cues, 1)}
        numbers = [ours[self.last, number] for number, _ in node.cues if (self.last, number) in ours]
        event = ChunkEvent(
            chunk=len(self.tree),
            parent=self.tip,
            branch=self.last,
            index=node.idx,
            start_frame=node.start_frame,
            num_frames=len(made.frames),
            prompt=made.prompt,
            cues=numbers,
            made_at=time.time(),
            threads=node.plan.threads,
            timings={name: round(seconds, 4) for name, seconds in made.timings.items()},
        )
        at = Point(index=node.idx, frame=node.start_frame, t=node.start_frame / take.clock.fps)
        applied = [Applied(event_id=self._cues[i - 1].event_id, cue=i, chunk=event.chunk, at=at) for i in numbers]
        self.tree.add(event)
        self.tip = event.chunk
        return Fresh(
            event=event,
            pictures=made.frames,
            applied=tuple(applied),
            waited_s=tuple(now - self._cues[i - 1].said_s for i in numbers),
            latent=None if self._follows else take.latents(),
        )

    def take_after(self, chunk: int) -> Take:
        """Return a new take that continues after `chunk`.

        Raises:
            InputError: there is no such chunk, or no take can continue from it.
        """
        event = self.tree[chunk]
        take = self[event.branch]
        if take is None:
            raise InputError("the session is over; play its script to go on from it")
        return take.retake(at=event.index + 1)


def _said(cues: Sequence[WaitingCue], take: Take) -> list[SaidCue]:
    """Cues of a session's log, with the numbers that those that wait have in the take.

    Of several cues for a chunk, those of the log were said last: others came with the branch.
    """
    now = time.monotonic()
    left: dict[int, list[int]] = {}
    for pending in take.state.pending:
        left.setdefault(pending.at, []).append(pending.cue_id)
    said = []
    for cue in reversed(cues):
        waiting = left.get(cue.due, []) if cue.due is not None else []
        said.append(SaidCue(cue.branch, waiting.pop() if waiting else 0, cue.event_id, now))
    return said[::-1]


def _point(place: Position) -> Point:
    """Convert a position in a take to a protocol message."""
    return Point(index=place.chunk, frame=place.frame, t=place.seconds)

"""State machine of one take: from a state and a command to a state and an answer, without torch or wall time.

head        the last finished chunk, after which the next one is made
pending     cues that are accepted and not yet applied, each for a chunk
planned     the chunk that is being made; its request follows from the settings at the head and the cues that are due.
            A cue for it that arrives before it is settled *overtakes* it: it is planned again
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from longtake.core.cue import Cue, Scales, Transition, check_loras
from longtake.core.errors import InputError
from longtake.sample.plans import ChunkPlan, InitFrames, Wording
from longtake.studio.commands import (
    Abandon,
    Accepted,
    AddCue,
    Advance,
    Begin,
    CancelCue,
    Command,
    End,
    PlanChunk,
    Position,
    Rewind,
    Settle,
    Shorten,
)
from longtake.studio.timeline import Clock, InForce, Node, node_at

FARTHEST_CHUNK = 10_000_000

Answer = Accepted | Node | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Pending:
    """Cue that has been accepted and not yet applied, with the chunk `at` which it applies."""

    cue_id: int
    cue: Cue
    at: int


def joined(prompt: str, change: str) -> str:
    """Append a change to a prompt."""
    return f"{prompt}, {change}"


@dataclass(frozen=True, kw_only=True, slots=True)
class TakeState:
    """State of a take, its tensors excepted."""

    clock: Clock
    opening: InForce
    join: Callable[[str, str], str] = joined
    given: InitFrames | None = None  # pictures that the take opens with
    strength: float | None = None  # strength of the source; None: there is no source
    threads: tuple[int, ...] = ()  # CPU threads of the first chunks, where a script is replayed
    rebuilt: frozenset[int] = frozenset()  # chunks before which the memory is rebuilt, see `ChunkPlan`
    scales: Mapping[str, float] = field(default_factory=dict)  # LoRAs that the model was opened with, and their scales
    head: Node | None = None
    planned: Node | None = None
    settled: bool = True  # whether no cue can overtake the planned chunk
    due: tuple[Pending, ...] = ()  # cues that the planned chunk applies
    pending: tuple[Pending, ...] = ()  # cues in order of chunk, then of number
    next_cue_id: int = 1
    streaming: bool = False

    @property
    def tip(self) -> Node | None:
        """Last chunk that no cue can change any more."""
        return self.planned if self.planned is not None and self.settled else self.head

    @property
    def overtaken(self) -> bool:
        """Whether a cue is pending for the chunk that is being made."""
        return self.planned is not None and any(p.at <= self.planned.idx for p in self.pending)

    @property
    def in_force(self) -> InForce:
        return self.opening if self.tip is None else self.tip.in_force

    @property
    def end(self) -> Position:
        """Position of the next chunk that a cue can change."""
        if self.tip is not None:
            return self.clock.place(self.tip.idx + 1, self.tip.stop_frame)
        return self.clock.place(0 if self.given is None else self.given.chunks - 1, 0)


def apply(state: TakeState, command: Command) -> tuple[TakeState, Answer]:  # noqa: PLR0911, PLR0912  (one a command)
    """Apply a command; returns the new state and the answer.

    Raises:
        InputError: the command is not possible in this state.
    """
    match command:
        case AddCue():
            return _add(state, command)
        case CancelCue():
            left = tuple(p for p in state.pending if p.cue_id != command.cue_id)
            if len(left) == len(state.pending):
                raise InputError(f"cue {command.cue_id} is not waiting: it was applied, cancelled, or never accepted")
            return replace(state, pending=left), None
        case Rewind():
            if state.streaming or state.planned:
                raise InputError("a stream of this take is running; close it before going back")
            return replace(state, head=node_at(state.head, command.to)), None
        case Begin():
            if state.streaming:
                raise InputError("this take is being streamed already; close that stream first, or retake")
            return replace(state, streaming=True), None
        case End():
            return replace(_abandoned(state), streaming=False), None
        case PlanChunk():
            node = upcoming(state, command.threads)
            due = tuple(p for p in state.pending if p.at <= node.idx)
            left = tuple(p for p in state.pending if p.at > node.idx)
            return replace(state, planned=node, settled=command.settled, due=due, pending=left), node
        case Shorten():
            assert state.planned is not None
            node = replace(state.planned, num_frames=command.frames)
            return replace(state, planned=node), node
        case Settle():
            return replace(state, settled=not state.overtaken), None
        case Advance():
            return replace(state, head=state.planned, planned=None, settled=True, due=()), None
        case Abandon():
            return _abandoned(state), None


def _abandoned(state: TakeState) -> TakeState:
    """State without a planned chunk, whose cues are pending again."""
    return replace(state, planned=None, settled=True, due=(), pending=(*state.due, *state.pending))


def upcoming(state: TakeState, threads: int | None = None) -> Node:
    """Plan of the chunk after the head, under the cues that are pending now.

    Args:
        state: of the take.
        threads: CPU threads of the chunk, where the script that is replayed does not say.
    """
    state = replace(state, planned=None)
    idx, before = state.end.chunk, state.in_force
    due = [p for p in state.pending if p.at <= idx]
    after, given = before, state.given if state.head is None else None
    changed: Transition | None = None
    cues = []
    for p in due:
        words = p.cue.prompt if p.cue.change is None else state.join(after.prompt, p.cue.change)
        cue = p.cue.model_copy(update={"prompt": words, "change": None})
        cues.append((p.cue_id, cue))
        after = _changed(after, cue)
        given = cue.given or given
        if cue.renews_memory:
            changed = _stronger(changed, cue.transition)
    if after.fading_from is not None:
        after = replace(after, fade_done=after.fade_done + 1)
        changed = changed or "recache"
        if after.fade_done > after.fade_length:
            after, changed = replace(after, fading_from=None, fade_done=0, fade_length=0), None
    number = idx - (0 if state.given is None else state.given.chunks - 1)  # of the chunks that are made
    plan = ChunkPlan(
        idx=idx,
        wording=wording_of(after),
        settings=replace(after.settings, loras=scales_of(after, state.scales)),
        transition=None if state.head is None or given is not None else changed,
        given=given,
        strength=state.strength,
        rebuilt=state.head is not None and idx in state.rebuilt and given is None,
        threads=state.threads[number] if number < len(state.threads) else threads,
    )
    return Node(
        plan=plan,
        in_force=after,
        parent=state.head,
        start_frame=state.end.frame,
        num_frames=_num_frames(state.clock, plan, is_first=state.head is None),
        cues=tuple(cues),
    )


def wording_of(in_force: InForce) -> Wording:
    """Wording in force: one prompt, or two weighted ones during a fade."""
    before = in_force.fading_from
    if before is None or before.prompt == in_force.prompt or in_force.fade_done >= in_force.fade_length:
        return ((in_force.prompt, 1.0),)
    new = in_force.fade_done / in_force.fade_length
    return ((before.prompt, 1 - new), (in_force.prompt, new))


def scales_of(in_force: InForce, opening: Mapping[str, float]) -> Scales:
    """Scales of LoRAs in force that cues have changed; during a fade, between those before it and those after it.

    Args:
        in_force: the settings, and the fade.
        opening: scales that the model was opened with.
    """
    scales, before = in_force.settings.loras, in_force.fading_from
    if before is None or in_force.fade_done >= in_force.fade_length:
        return scales
    old, new = {**opening, **dict(before.settings.loras)}, in_force.fade_done / in_force.fade_length
    return tuple((name, (1 - new) * old[name] + new * scale) for name, scale in scales)


def due_at(state: TakeState, at: int | None, at_s: float | None) -> Position:
    """Position of the chunk that a cue is for, given the cues that are pending now.

    Raises:
        InputError: both `at` and `at_s` are given, the time is invalid or has passed, or it is too far ahead.
    """
    if at is not None and at_s is not None:
        raise InputError("say when by a chunk or by seconds, not by both")
    end = state.end
    if at is None and at_s is None:
        return end
    if at_s is not None and not (math.isfinite(at_s) and at_s >= 0):
        raise InputError(f"a time is a number of seconds from the start, got {at_s:g}")
    if (at is not None and at < end.chunk) or (at_s is not None and at_s < end.seconds - 1e-6):
        asked = f"chunk {at}" if at is not None else f"{at_s:g} s"
        raise InputError(
            f"{asked} has passed: the next chunk is {end.chunk}, at {end.seconds:.2f} s; rewind, or choose a later time"
        )
    if (at or 0) > FARTHEST_CHUNK or (at_s or 0) * state.clock.fps > FARTHEST_CHUNK * state.clock.chunk_frames:
        raise InputError(f"no cue can be scheduled beyond chunk {FARTHEST_CHUNK:,}")
    # `other` maps chunks of unusual length to their frames. The loop advances from one to the next, since all chunks
    # in between have the usual length.
    waiting = state.pending if state.settled else (*state.due, *state.pending)
    other = {p.at: state.clock.opening_frames for p in waiting if p.cue.transition == "cut"}
    other |= {p.at: p.cue.given.frames for p in waiting if p.cue.given is not None}
    if state.tip is None:
        other[end.chunk] = state.clock.opening_frames if state.given is None else state.given.frames
    chunk, frame, usual = end.chunk, end.frame, state.clock.chunk_frames
    wanted = math.ceil((at_s or 0.0) * state.clock.fps - 1e-6)  # first frame at or after the time
    for special in [*sorted(other), FARTHEST_CHUNK]:
        ahead = at - chunk if at is not None else max(0, -((frame - wanted) // usual))
        if chunk + ahead <= special:
            return state.clock.place(chunk + ahead, frame + ahead * usual)
        frame += (special - chunk) * usual + other.get(special, usual)
        chunk = special + 1
    raise InputError(f"no cue can be scheduled beyond chunk {FARTHEST_CHUNK:,}")


def _add(state: TakeState, command: AddCue) -> tuple[TakeState, Accepted]:
    place = due_at(state, command.at, command.at_s)
    check_loras(command.cue.loras, state.scales)
    if state.tip is None and place.chunk == state.end.chunk and command.cue.given is not None:
        raise InputError("a take cannot open with an image cue; begin it with animate")
    pending = Pending(cue_id=state.next_cue_id, cue=command.cue, at=place.chunk)
    waiting = sorted((*state.pending, pending), key=lambda p: (p.at, p.cue_id))
    accepted = Accepted(cue_id=pending.cue_id, accepted_at=state.end, due_at=place)
    return replace(state, pending=tuple(waiting), next_cue_id=state.next_cue_id + 1), accepted


def _stronger(one: Transition | None, other: Transition) -> Transition:
    """Combine the transitions of two cues at one chunk: the one that keeps less memory."""
    order: tuple[Transition, ...] = ("recache", "flush", "cut")
    first: Transition = one or "recache"
    return first if order.index(first) >= order.index(other) else other


def _changed(before: InForce, cue: Cue) -> InForce:
    """Prompt, fade and settings in force after a cue."""
    after = replace(before, settings=before.settings.after(cue))
    if not cue.renews_memory:
        return after
    fading_from = replace(before, fading_from=None) if cue.fade else None
    prompt = before.prompt if cue.prompt is None else cue.prompt
    return replace(after, prompt=prompt, fading_from=fading_from, fade_done=0, fade_length=cue.fade)


def _num_frames(clock: Clock, plan: ChunkPlan, *, is_first: bool) -> int:
    if plan.given is not None:
        return plan.given.frames
    return clock.opening_frames if is_first or plan.transition == "cut" else clock.chunk_frames

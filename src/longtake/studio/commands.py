"""Commands to a take and their answers, as frozen values."""

from dataclasses import dataclass

from longtake.core.cue import Cue


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """Point in a take: the first frame of a chunk."""

    chunk: int
    frame: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class AddCue:
    """Add a cue at the next chunk, at chunk `at`, or at the first chunk that begins `at_s` seconds in or later."""

    cue: Cue
    at: int | None = None
    at_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CancelCue:
    """Cancel a cue that has not been applied."""

    cue_id: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Rewind:
    """Make chunk `to` the head; -1 is the beginning."""

    to: int


@dataclass(frozen=True, slots=True)
class Begin:
    """Start a stream of chunks."""


@dataclass(frozen=True, slots=True)
class End:
    """End the stream; the take is kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanChunk:
    """Plan the next chunk."""

    settled: bool = False  # whether later cues apply to later chunks only, and cannot overtake this one
    threads: int | None = None  # CPU threads to make it with, where a script does not say


@dataclass(frozen=True, kw_only=True, slots=True)
class Shorten:
    """Shorten the planned chunk to its first `frames` frames, at which its source ends."""

    frames: int


@dataclass(frozen=True, slots=True)
class Settle:
    """Settle the planned chunk, which is nearly finished: cues from now on apply to the next one."""


@dataclass(frozen=True, slots=True)
class Advance:
    """Make the planned chunk, which is finished, the head."""


@dataclass(frozen=True, slots=True)
class Abandon:
    """Abandon the planned chunk; its cues are pending again."""


Command = AddCue | CancelCue | Rewind | Begin | End | PlanChunk | Shorten | Settle | Advance | Abandon


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """Acceptance of a cue, with the take's position at the time and the first chunk that will show the cue."""

    cue_id: int
    accepted_at: Position
    due_at: Position

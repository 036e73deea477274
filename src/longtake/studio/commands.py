"""What can be said to a take, and what it answers. Frozen values."""

from dataclasses import dataclass

from longtake.core.cue import Cue


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """A point of a take: the first frame of a chunk."""

    chunk: int
    frame: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class AddCue:
    """Take a cue to heart: at the next chunk, at chunk `at`, or at the first that begins `at_s` or later."""

    cue: Cue
    at: int | None = None
    at_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CancelCue:
    """Forget a cue that has not been applied."""

    cue_id: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Rewind:
    """Make chunk `to` the head; -1 is the beginning."""

    to: int


@dataclass(frozen=True, slots=True)
class Begin:
    """A stream of chunks starts."""


@dataclass(frozen=True, slots=True)
class End:
    """The stream stops; the take stays."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanChunk:
    """The next chunk is begun."""

    settled: bool = False  # later cues are for later chunks; else one may still overtake this one


@dataclass(frozen=True, kw_only=True, slots=True)
class Shorten:
    """Only the first frames of the planned chunk will be shown: its source ends there."""

    frames: int


@dataclass(frozen=True, slots=True)
class Settle:
    """The planned chunk is nearly made: from now on, cues are for the one after it."""


@dataclass(frozen=True, slots=True)
class Advance:
    """The chunk that was planned has been made."""


@dataclass(frozen=True, slots=True)
class Abandon:
    """The chunk that was planned could not be made; its cues wait again."""


Command = AddCue | CancelCue | Rewind | Begin | End | PlanChunk | Shorten | Settle | Advance | Abandon


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """A cue is accepted: where the take stood, and the chunk that will be the first to show it."""

    cue_id: int
    accepted_at: Position
    due_at: Position

"""What can be said to a take, and what it answers. Frozen values."""

from dataclasses import dataclass

from longtake.core.errors import InputError
from longtake.sample.plans import InitFrames, Transition

LONGEST_FADE = 64  # chunks
MAX_GUIDANCE = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Cue:
    """A change. None leaves a thing as it is.

    Raises:
        InputError: nothing would change; a transition or a fade has no words to go with; a value is out of range.
    """

    prompt: str | None = None  # whole: what the take shows from then on
    change: str | None = None  # or what is added to the prompt that is in force when it is applied
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    given: InitFrames | None = None  # a picture that the take goes on from
    transition: Transition = "recache"
    fade: int = 0  # chunks over which the prompt changes; 0: at once

    def __post_init__(self) -> None:
        others = (self.seed, self.steps, self.guidance, self.given)
        if not self.has_words and all(other is None for other in others):
            raise InputError("a cue changes something: give it a prompt, a seed, steps, guidance or an image")
        if self.prompt is not None and self.change is not None:
            raise InputError("give a change or a whole prompt, not both")
        if self.transition not in ("recache", "flush", "cut"):
            raise InputError(f'a transition is "recache", "flush" or "cut", got "{self.transition}"')
        if self.transition != "recache" and (not self.has_words or self.given is not None):
            raise InputError(
                f"a {self.transition} goes with a prompt and without an image, which replaces memory anyway"
            )
        if not 0 <= self.fade <= LONGEST_FADE:
            raise InputError(f"a fade lasts 0 to {LONGEST_FADE} chunks, got {self.fade}")
        if self.fade and (not self.has_words or self.given is not None or self.transition != "recache"):
            raise InputError("a fade goes from one prompt to another and recaches; no cut, no flush, no image")
        if self.steps is not None and not 1 <= self.steps <= 1000:
            raise InputError(f"steps must be between 1 and 1000, got {self.steps}")
        if self.guidance is not None and not 0 <= self.guidance <= MAX_GUIDANCE:
            raise InputError(f"guidance must be between 0 and {MAX_GUIDANCE}, got {self.guidance:g}")
        if self.seed is not None and not -(2**63) <= self.seed < 2**63:
            raise InputError(f"a seed fits in 64 bits, got {self.seed}")

    @property
    def has_words(self) -> bool:
        return self.prompt is not None or self.change is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
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
class Plan:
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


Command = AddCue | CancelCue | Rewind | Begin | End | Plan | Shorten | Settle | Advance | Abandon


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """A cue is accepted: where the take stood, and the chunk that will be the first to show it."""

    cue_id: int
    accepted_at: Place
    due_at: Place

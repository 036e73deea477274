"""A change of a take: its fields and what they may be, for Python, scripts, the command line and the protocol alike.

`CueFields` are the fields. `Settings` is what is in force after a cue: a field of the cue replaces the one of its name.
A new field is a line in each, and whatever makes chunks of it.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from longtake.core.errors import InputError
from longtake.core.limits import LONGEST_FADE, MAX_GUIDANCE, MAX_PROMPT_CHARACTERS, MAX_SEED, MAX_STEPS, checked_text

Transition = Literal["recache", "flush", "cut"]
Prompt = Annotated[
    str, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS), AfterValidator(lambda text: checked_text("it", text))
]
Seed = Annotated[int, Field(ge=-MAX_SEED, le=MAX_SEED)]
Steps = Annotated[int, Field(ge=1, le=MAX_STEPS)]
Guidance = Annotated[
    float,
    Field(
        ge=0,
        le=MAX_GUIDANCE,
        allow_inf_nan=False,
        description="Towards the prompt; 1: the model alone, others take longer",
    ),
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What a take is asked for after its cues so far, besides its prompt."""

    seed: int = 0
    steps: int | None = None  # denoising steps; None: the model's own
    guidance: float = 1.0
    negative_prompt: str | None = None  # that guidance leads away from; None: the model's own

    def after(self, cue: "CueFields") -> "Settings":
        """The settings under a cue: those of its fields that are not None."""
        changed = {field.name: getattr(cue, field.name) for field in fields(self)}
        return replace(self, **{name: value for name, value in changed.items() if value is not None})


class CueFields(BaseModel):
    """The fields of a cue; None leaves a thing as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Prompt | None = Field(default=None, description="The whole prompt from then on")
    change: Prompt | None = Field(default=None, description="Or what happens, added to the prompt that is in force")
    transition: Transition = Field(default="recache", description="What happens to memory when the prompt changes")
    fade: int = Field(default=0, ge=0, le=LONGEST_FADE, description="Chunks over which the prompt changes; 0: at once")
    seed: Seed | None = None
    steps: Steps | None = None
    guidance: Guidance | None = None
    negative_prompt: Prompt | None = Field(default=None, description="What guidance leads away from")


class Cue(CueFields):
    """A change of a take.

    Raises:
        ValidationError: nothing would change, values contradict each other, or one is out of range; see `input_errors`.
    """

    given: Any = Field(default=None, repr=False)  # InitFrames: a picture that the take goes on from

    @classmethod
    def of(cls, values: CueFields, given: Any = None) -> "Cue":
        """The cue with the values of a message or of a script's line."""
        return cls(**{name: getattr(values, name) for name in CueFields.model_fields}, given=given)

    @property
    def has_prompt(self) -> bool:
        """Whether the prompt changes."""
        return self.prompt is not None or self.change is not None

    @model_validator(mode="after")
    def _is_consistent(self) -> "Cue":
        others = (self.given, *(getattr(self, field.name) for field in fields(Settings)))
        if not self.has_prompt and all(other is None for other in others):
            raise InputError("a cue changes something: give it a prompt, a seed, steps, guidance or an image")
        if self.prompt is not None and self.change is not None:
            raise InputError("give a change or a whole prompt, not both")
        if self.transition != "recache" and (not self.has_prompt or self.given is not None):
            raise InputError(
                f"a {self.transition} goes with a prompt and without an image, which replaces memory anyway"
            )
        if self.fade and (not self.has_prompt or self.given is not None or self.transition != "recache"):
            raise InputError("a fade goes from one prompt to another and recaches; no cut, no flush, no image")
        return self


@contextmanager
def input_errors() -> Generator[None]:
    """Turn what pydantic finds wrong inside into an InputError of one line.

    Raises:
        InputError: a value is out of range, or values contradict each other.
    """
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "value_error":
            message = first["msg"].removeprefix("Value error, ")
            raise InputError(f"{name}: {message}" if name else message) from error
        message = first["msg"].replace("Input should be", "must be", 1)
        raise InputError(f"{name} {message}, got {first['input']!r}") from error

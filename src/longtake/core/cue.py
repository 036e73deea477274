"""Cues: the fields of a change of a take and their valid values, shared by Python, scripts, CLI and protocol.

`CueFields` holds the fields. `Settings` holds the values in force after a cue: each field of the cue that is not None
replaces the setting of the same name; scales of LoRAs replace those of the same LoRAs. To add a field, add a line to
both and use it where chunks are made.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from longtake.core.errors import InputError
from longtake.core.limits import (
    LONGEST_FADE,
    MAX_GUIDANCE,
    MAX_LORA_SCALE,
    MAX_LORAS,
    MAX_PROMPT_CHARACTERS,
    MAX_SEED,
    MAX_STEPS,
    checked_text,
)

Transition = Literal["recache", "flush", "cut"]
Prompt = Annotated[
    str, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS), AfterValidator(lambda text: checked_text("it", text))
]
Seed = Annotated[int, Field(ge=-MAX_SEED, le=MAX_SEED)]
Steps = Annotated[int, Field(ge=1, le=MAX_STEPS)]
LoraScale = Annotated[float, Field(ge=-MAX_LORA_SCALE, le=MAX_LORA_SCALE, allow_inf_nan=False)]
LoraScales = Annotated[
    dict[str, LoraScale],
    Field(min_length=1, max_length=MAX_LORAS, description="Scales of LoRAs that the model was opened with"),
]
Scales = tuple[tuple[str, float], ...]  # names of LoRAs and their scales, sorted
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
    """Settings in force at a chunk of a take, the prompt excepted."""

    seed: int = 0
    steps: int | None = None  # denoising steps; None: the model's default
    guidance: float = 1.0
    negative_prompt: str | None = None  # prompt that guidance leads away from; None: the model's default
    loras: Scales = ()  # scales of LoRAs, where they are not those that the model was opened with

    def after(self, cue: "CueFields") -> "Settings":
        """Settings in which the cue's fields that are not None replace those of the same name."""
        given = {field.name: getattr(cue, field.name) for field in fields(self)}
        changed = {name: value for name, value in given.items() if value is not None}
        if cue.loras is not None:
            changed["loras"] = tuple(sorted({**dict(self.loras), **cue.loras}.items()))
        return replace(self, **changed)


class CueFields(BaseModel):
    """Fields of a cue; None leaves a value unchanged."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Prompt | None = Field(default=None, description="The whole prompt from then on")
    change: Prompt | None = Field(default=None, description="Or what happens, added to the prompt that is in force")
    transition: Transition = Field(
        default="recache", description="What happens to memory when the prompt or a LoRA's scale changes"
    )
    fade: int = Field(
        default=0, ge=0, le=LONGEST_FADE, description="Chunks over which the prompt and scales change; 0: at once"
    )
    seed: Seed | None = None
    steps: Steps | None = None
    guidance: Guidance | None = None
    negative_prompt: Prompt | None = Field(default=None, description="What guidance leads away from")
    loras: LoraScales | None = None


class Cue(CueFields):
    """Change of a take.

    Raises:
        ValidationError: nothing would change, values contradict each other, or one is out of range; see `input_errors`.
    """

    given: Any = Field(default=None, repr=False)  # picture from which the take continues, an `InitFrames`

    @classmethod
    def of(cls, values: CueFields, given: Any = None) -> "Cue":
        """Build a cue from the fields of a protocol message or of a cue in a script."""
        return cls(**{name: getattr(values, name) for name in CueFields.model_fields}, given=given)

    @property
    def has_prompt(self) -> bool:
        """Whether the cue changes the prompt."""
        return self.prompt is not None or self.change is not None

    @property
    def renews_memory(self) -> bool:
        """Whether the cue changes what the keys and values in memory are computed with: the prompt, or the weights."""
        return self.has_prompt or bool(self.loras)

    @model_validator(mode="after")
    def _is_consistent(self) -> "Cue":
        others = (self.given, *(getattr(self, field.name) for field in fields(Settings)))
        if not self.has_prompt and all(other is None for other in others):
            raise InputError("a cue changes something: give it a prompt, a seed, steps, guidance, LoRAs or an image")
        if self.prompt is not None and self.change is not None:
            raise InputError("give a change or a whole prompt, not both")
        if self.transition != "recache" and (not self.renews_memory or self.given is not None):
            raise InputError(
                f"a {self.transition} goes with a prompt or LoRAs and without an image, which replaces memory anyway"
            )
        if self.fade and (not self.renews_memory or self.given is not None or self.transition != "recache"):
            raise InputError(
                "a fade goes from one prompt to another, or from one scale of a LoRA to another, and recaches; no cut, "
                "no flush, no image"
            )
        return self


def check_loras(scales: Mapping[str, float] | None, known: Mapping[str, float]) -> None:
    """Check that scales are for LoRAs that the model was opened with.

    Raises:
        InputError: a LoRA is unknown.
    """
    if unknown := [name for name in scales or {} if name not in known]:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise InputError(f'the model was not opened with a LoRA "{unknown[0]}", {has}; open it with that LoRA, too')


@contextmanager
def input_errors() -> Generator[None]:
    """Convert a pydantic ValidationError raised in the block into a one-line InputError.

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

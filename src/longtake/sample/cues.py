"""Parsing of timed prompts. The module does not import torch, so that mistakes are reported at once.

A take opens with a prompt and changes by cues. These can be written in two ways, which may be mixed:

- inside the prompt: "a tiger walks, then snow starts to fall" opens with "a tiger walks" and changes half-way; with
  several ", then " the changes are evenly spaced;
- with a time: "4s: it starts to snow".

A cue *continues* the take, so its prompt is the opening prompt and every change so far, joined by ", ".
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from longtake.core.errors import InputError
from longtake.core.limits import checked_text

BEAT = re.compile(r",\s+then\s+", re.IGNORECASE)
TIMED = re.compile(r"\s*(?P<sign>-?)(?P<at_s>[0-9]+(?:\.[0-9]+)?)\s*s\s*:(?P<text>.*)", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedPrompt:
    """Prompt of a take from `at_s` seconds on."""

    at_s: float
    prompt: str


def cues_from(prompt: str, then: Sequence[str], seconds: float) -> tuple[TimedPrompt, ...]:
    """Parse the cues of a take, in order of time; the first is the opening prompt, at 0 s.

    Args:
        prompt: the opening prompt, optionally with changes after ", then ".
        then: changes of the form "4s: it starts to snow".
        seconds: duration of the take.

    Raises:
        InputError: `seconds` is not a positive number; a text is empty, too long, or holds control characters; a
            change has no time, a negative one, one at or after the end, or one at which there is a change already.
    """
    if not (math.isfinite(seconds) and seconds > 0):
        raise InputError(f"seconds must be a positive number, got {seconds:g}")
    opening, *beats = BEAT.split(checked_text("the prompt", prompt))
    opening = checked_text("the prompt before ', then'", opening)
    changes = [
        (seconds * idx / (len(beats) + 1), checked_text("the text after ', then'", beat))
        for idx, beat in enumerate(beats, start=1)
    ]
    changes = sorted([*changes, *(_timed(text, seconds) for text in then)])
    cues = [TimedPrompt(at_s=0.0, prompt=opening)]
    for at_s, text in changes:
        if at_s == cues[-1].at_s:
            raise InputError(f"two changes at {at_s:g} s; write them as one, or move one of them")
        cues.append(
            TimedPrompt(at_s=at_s, prompt=checked_text("the prompt with its changes", f"{cues[-1].prompt}, {text}"))
        )
    return tuple(cues)


def _timed(text: str, seconds: float) -> tuple[float, str]:
    """Parse a change such as "4s: it starts to snow" to its time and its text."""
    parts = TIMED.fullmatch(text)
    if parts is None:
        raise InputError(f'a change reads "4s: it starts to snow" (a time, "s:", a text), got {shown(text)}')
    at_s = float(parts["at_s"])
    if parts["sign"] or at_s == 0:
        raise InputError(f"a change comes after the start, got {shown(text)}; what is seen at 0 s is the prompt itself")
    if at_s >= seconds:
        raise InputError(f"the change at {at_s:g} s comes after the end of a take of {seconds:g} s")
    return at_s, checked_text(f"the text of the change at {at_s:g} s", parts["text"])


def shown(text: str) -> str:
    """Quote a text for an error message: escaped, and truncated to 60 characters."""
    return ascii(text if len(text) <= 60 else f"{text[:57]}...").replace("\\'", "'")

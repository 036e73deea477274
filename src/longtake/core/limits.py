"""Limits of what a take can be asked for, each in one place."""

import unicodedata

from longtake.core.errors import InputError

MAX_PROMPT_CHARACTERS = 1000
MAX_SEED = 2**53  # the largest integer that every JSON reader keeps exactly
MAX_STEPS = 100  # denoising steps a chunk
MAX_GUIDANCE = 20
LONGEST_FADE = 64  # chunks


def checked_text(name: str, text: str) -> str:
    """A prompt without surrounding white space.

    Args:
        name: of the text, for errors.
        text: that a person wrote.

    Raises:
        InputError: it is empty, longer than `MAX_PROMPT_CHARACTERS`, or holds control characters.
    """
    stripped = text.strip()
    if not stripped:
        raise InputError(f"{name} is empty; say what should be seen")
    if len(stripped) > MAX_PROMPT_CHARACTERS:
        raise InputError(f"{name} has {len(stripped):,} characters, at most {MAX_PROMPT_CHARACTERS:,} are read")
    # Cs: bytes of the command line that were not valid text
    bad = next((character for character in stripped if unicodedata.category(character) in ("Cc", "Cs")), None)
    if bad is not None:
        raise InputError(f"{name} holds a control character (U+{ord(bad):04X}); write it as plain text on one line")
    return stripped

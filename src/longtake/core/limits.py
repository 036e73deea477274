"""Limits on the values that users may give."""

import unicodedata

from longtake.core.errors import InputError

MAX_PROMPT_CHARACTERS = 1000
MAX_SEED = 2**53  # largest integer that every JSON reader represents exactly
MAX_STEPS = 100  # denoising steps per chunk
MAX_GUIDANCE = 20
LONGEST_FADE = 64  # chunks
MAX_LORAS = 16  # LoRAs that a model is opened with
MAX_LORA_SCALE = 10


def checked_text(name: str, text: str) -> str:
    """Strip the white space around a prompt and check the prompt.

    Args:
        name: what to call the text in errors.
        text: the prompt as given by the user.

    Raises:
        InputError: it is empty, longer than `MAX_PROMPT_CHARACTERS`, or holds control characters.
    """
    stripped = text.strip()
    if not stripped:
        raise InputError(f"{name} is empty; say what should be seen")
    if len(stripped) > MAX_PROMPT_CHARACTERS:
        raise InputError(f"{name} has {len(stripped):,} characters, at most {MAX_PROMPT_CHARACTERS:,} are read")
    # Category Cs (surrogates) stands for command-line bytes that were not valid text.
    bad = next((character for character in stripped if unicodedata.category(character) in ("Cc", "Cs")), None)
    if bad is not None:
        raise InputError(f"{name} holds a control character (U+{ord(bad):04X}); write it as plain text on one line")
    return stripped

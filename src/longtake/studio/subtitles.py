"""Subtitle files (WebVTT and SubRip) as cue tracks: their timed texts are read as timed prompts."""

import html
import re
from pathlib import Path

from longtake.core.errors import InputError
from longtake.core.limits import checked_text
from longtake.media.targets import reason
from longtake.sample.cues import TimedPrompt

MAX_BYTES = 4 * 1024**2
SUFFIXES = (".vtt", ".srt")

TIME = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{2})[.,](\d{3})"
TIMING = re.compile(rf"\s*{TIME}\s+-->\s+{TIME}(?:\s.*)?")
TAG = re.compile(r"<[^>]*>|\{\\[^}]*\}")


def read_subtitles(path: Path) -> tuple[TimedPrompt, ...]:
    """Read the prompts of a subtitle file in order of time; the first is moved to 0 s, to open the take.

    Args:
        path: a `.vtt` or `.srt` file in UTF-8; comments, styles and tags are ignored.

    Raises:
        InputError: it cannot be read, holds no cue, its times go backwards or coincide, or a text is no valid prompt.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path} is larger than {MAX_BYTES >> 20} MiB; that is no cue track")
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {reason(error)}") from error
    cues: list[TimedPrompt] = []
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n").replace("\r", "\n")):
        lines = block.strip().split("\n")
        timed = next((i for i, line in enumerate(lines[:2]) if "-->" in line), None)
        if timed is None:
            continue  # the block is a header, a comment or a style
        timing = TIMING.fullmatch(lines[timed])
        if timing is None:
            raise InputError(f'{path}: a time reads "00:01:02.500 --> 00:01:05.000", got "{lines[timed].strip()[:60]}"')
        prompt = html.unescape(TAG.sub("", " ".join(lines[timed + 1 :])))
        at_s = _seconds(timing)
        if not cues:
            at_s = 0.0
        elif at_s <= cues[-1].at_s:
            raise InputError(f"{path}: the cue at {at_s:g} s does not come after the one at {cues[-1].at_s:g} s")
        cues.append(
            TimedPrompt(at_s=at_s, prompt=checked_text(f"the cue at {at_s:g} s of {path}", " ".join(prompt.split())))
        )
    if not cues:
        raise InputError(f"{path} holds no cue: a line with a time (00:01.000 --> 00:02.000) and a text under it")
    return tuple(cues)


def _seconds(timing: re.Match[str]) -> float:
    hours, minutes, seconds, millis = timing.groups()[:4]
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + int(millis) / 1000

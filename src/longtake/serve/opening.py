"""How a session begins: the take of an opening, and the source that it follows."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from longtake.core.cue import Settings
from longtake.core.errors import InputError
from longtake.serve.messages import Frames, GameRequest, Open, VideoRequest
from longtake.studio.games import GameSource
from longtake.studio.sources import LiveSource, Source
from longtake.studio.studio import Studio
from longtake.studio.takes import Take
from longtake.worlds import game


def begin_take(studio: Studio, opening: Open, asset: Callable[[str], Path]) -> tuple[Take, Source | None]:
    """Begin the take of an opening; returns it with its live source, if it follows one.

    Args:
        studio: opens the take.
        opening: prompt, settings, and the picture, clip or source to begin with.
        asset: returns the path of an upload, given its id.

    Raises:
        LongtakeError: the opening cannot be fulfilled.
    """
    settings = {field.name: getattr(opening, field.name) for field in fields(Settings)}
    given = [name for name in ("image", "clip", "source") if getattr(opening, name) is not None]
    if len(given) > 1:
        raise InputError(f"a take begins with one thing, not with {' and '.join(given)}")
    if opening.image is not None:
        return studio.animate(asset(opening.image), opening.prompt, **settings), None
    if opening.clip is not None:
        return studio.extend(asset(opening.clip), opening.prompt, **settings), None
    match opening.source:
        case None:
            return studio.take(opening.prompt, **settings), None
        case Frames():
            source: Source = LiveSource(studio.size, capacity=2 * studio.clock.chunk_frames)
        case GameRequest(subject=subject, place=place):
            source = GameSource(game.Game.new(subject, place, studio.size))
        case VideoRequest(asset=video):
            return studio.restyle(asset(video), opening.prompt, strength=opening.strength, **settings), None
    return studio.restyle(source, opening.prompt, strength=opening.strength, **settings), source

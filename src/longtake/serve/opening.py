"""How a session begins: the take of an opening, the source that it follows, and the first log entry."""

import io
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from longtake.core.cue import Settings
from longtake.core.errors import InputError
from longtake.core.shapes import PictureSize
from longtake.media.targets import reason
from longtake.serve.handover import WorkerInfo
from longtake.serve.messages import Frames, GameRequest, Open, Opened, VideoRequest
from longtake.serve.schedule import LEAD, LIVE_LEAD
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


def opened_by(opening: Open, about: WorkerInfo) -> Opened:
    """First log entry of a session that a worker makes."""
    follows = isinstance(opening.source, Frames | GameRequest)
    return Opened(
        model=about.model,
        prompt=opening.prompt,
        seed=opening.seed,
        fps=about.fps,
        width=about.size.width,
        height=about.size.height,
        codec=about.codec,
        lead=LIVE_LEAD if follows else LEAD,
        source=opening.source.kind if opening.source else None,
    )


def source_picture(data: bytes, size: PictureSize) -> Tensor:
    """Decode a picture of a live source, the bytes of an image file.

    Raises:
        InputError: it cannot be decoded, or has another size than the model's.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as opened:
            if opened.size != (size.width, size.height):
                raise InputError(f"the picture is {opened.width}x{opened.height}, the model sees {size}")
            return torch.from_numpy(np.array(opened.convert("RGB")))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"a picture of a source is a JPEG or PNG file: {reason(error)}") from error

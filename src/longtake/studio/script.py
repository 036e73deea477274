"""The file that makes a take again, bit for bit. JSON, checked by a schema, written to be read and edited by people."""

import base64
import io
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from longtake.core.errors import InputError, MediaError
from longtake.core.shapes import Pictures
from longtake.core.version import __version__
from longtake.media.targets import Target, reason
from longtake.sample.plans import Given, Transition
from longtake.studio.commands import LONGEST_FADE, AddCue, Cue
from longtake.studio.session import apply
from longtake.studio.studio import Studio
from longtake.studio.takes import Take
from longtake.studio.timeline import path_to

VERSION = 1
MAX_SCRIPT_BYTES = 64 * 1024**2

Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Steps = Annotated[int, Field(ge=1, le=1000)]
Prompt = Annotated[str, Field(min_length=1, max_length=1000)]


class Part(BaseModel):
    """What all parts of a script share: unknown fields are refused, so that a typing mistake is told."""

    model_config = ConfigDict(extra="forbid")


class GivenPictures(Part):
    """Pictures that are given, not made."""

    png: list[str] = Field(description="The pictures, each a PNG file in base64", min_length=1, max_length=1000)
    chunks: int = Field(description="Chunks that they fill", ge=1)
    frames: int = Field(description="Frames of them that are shown", ge=1)


class ScriptCue(Part):
    """A change, at a chunk or at a time."""

    chunk: int | None = Field(default=None, ge=0, description="The first chunk that shows it")
    at_s: float | None = Field(default=None, ge=0, description="Or the time; the first chunk that begins then or later")
    prompt: Prompt | None = Field(default=None, description="The whole prompt from then on")
    seed: Seed | None = None
    steps: Steps | None = None
    transition: Transition = "recache"
    fade: int = Field(default=0, ge=0, le=LONGEST_FADE, description="Chunks over which the prompt changes")
    given: GivenPictures | None = None


class Opening(Part):
    """How the take begins."""

    prompt: Prompt
    seed: Seed = 0
    steps: Steps | None = None
    given: GivenPictures | None = None


class Script(Part):
    """A take. Leave out `weights` to play a script on any weights of the model."""

    version: Literal[1] = Field(description="Of this format")
    longtake: str = Field(default=__version__, description="That wrote it")
    model: str = "tiny-world"
    weights: str | None = Field(default=None, description="Hash of the weights that made the take")
    size: str | None = Field(default=None, description="Of the pictures, WIDTHxHEIGHT")
    opening: Opening
    cues: list[ScriptCue] = Field(default_factory=list, max_length=100_000)
    chunks: int = Field(default=0, ge=0, description="How many were made")

    def save(self, path: Path | str) -> Path:
        """Write it.

        Raises:
            MediaError: the file cannot be written.
        """
        target = Target(Path(path))
        target.prepare()
        try:
            target.growing_path.write_text(self.model_dump_json(indent=2, exclude_none=True) + "\n")
        except OSError as error:
            target.discard()
            raise MediaError(f"cannot write {path}: {reason(error)}") from error
        target.commit(target.growing_path)
        return Path(path)

    @classmethod
    def load(cls, path: Path | str) -> "Script":
        """Read a script and check it.

        Raises:
            InputError: it is missing, too large, no JSON, of another version, or says something that cannot be.
        """
        path = Path(path)
        try:
            if path.stat().st_size > MAX_SCRIPT_BYTES:
                raise InputError(f"{path} is larger than {MAX_SCRIPT_BYTES >> 20} MiB; that is no script")
            text = path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read {path}: {reason(error)}") from error
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise InputError(f"{path} is not a script that can be played: {where}: {first['msg'].lower()}") from error


def script_of(take: Take) -> Script:
    """What makes a take again: its opening and the cues that were applied, up to its head."""
    studio, state = take.studio, take.state
    cues = []
    for node in path_to(take.head):
        for _, cue in node.cues:
            given = None if cue.given is None else _pictures_of(studio, cue.given)
            cues.append(
                ScriptCue(
                    chunk=node.idx,
                    prompt=cue.prompt,
                    seed=cue.seed,
                    steps=cue.steps,
                    transition=cue.transition,
                    fade=cue.fade,
                    given=given,
                )
            )
    opening = state.opening
    return Script(
        version=VERSION,
        model=studio.model.name,
        weights=studio.model.digest,
        size=str(studio.size),
        opening=Opening(
            prompt=opening.prompt,
            seed=opening.seed,
            steps=opening.steps,
            given=None if state.given is None else _pictures_of(studio, state.given),
        ),
        cues=cues,
        chunks=0 if take.head is None else len(path_to(take.head)),
    )


def take_from(script: Script, studio: Studio) -> Take:
    """A take that has the script's cues before it. Stream `script.chunks` chunks of it to have the take again.

    Raises:
        InputError: the script is for another model, other weights or another size, or a cue cannot be.
    """
    for what, wanted, have in (
        ("the model", script.model, studio.model.name),
        ("the weights", script.weights, studio.model.digest),
        ("the size", script.size, str(studio.size)),
    ):
        if wanted is not None and wanted != have:
            raise InputError(
                f"the script was made with another {what.removeprefix('the ')}: {wanted}, here it is {have}; open that "
                f"one, or take {what} out of the script to play it as it comes"
            )
    opening = script.opening
    take = studio.take(opening.prompt, seed=opening.seed, steps=opening.steps)
    state = take.state
    if opening.given is not None:
        state = replace(state, given=_given_of(studio, opening.given, "the opening"))
    for number, line in enumerate(script.cues, 1):
        try:
            cue = Cue(
                prompt=None if line.prompt is None else studio.checked_prompt(line.prompt),
                seed=line.seed,
                steps=line.steps,
                transition=line.transition,
                fade=line.fade,
                given=None if line.given is None else _given_of(studio, line.given, f"cue {number}"),
            )
            state, _ = apply(state, AddCue(cue=cue, at=line.chunk, at_s=line.at_s))
        except InputError as error:
            raise InputError(f"cue {number} of the script: {error}") from error
    return Take(studio, state, script.chunks or None)


def _pictures_of(studio: Studio, given: Given) -> GivenPictures:
    pictures = studio.given[given.digest]
    distinct = pictures[:1] if given.frames == 1 else pictures
    return GivenPictures(png=[_png(picture) for picture in distinct], chunks=given.chunks, frames=given.frames)


def _given_of(studio: Studio, pictures: GivenPictures, where: str) -> Given:
    decoded = torch.cat([_picture(png, where) for png in pictures.png])
    given = studio.give_image(decoded) if pictures.frames == 1 else studio.give_clip(decoded)
    if (given.chunks, given.frames) != (pictures.chunks, pictures.frames):
        raise InputError(
            f"{where} of the script gives {len(decoded)} pictures for {pictures.chunks} chunks; they fill "
            f"{given.chunks}"
        )
    return given


def _png(picture: torch.Tensor) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture.numpy()).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _picture(png: str, where: str) -> Pictures:
    try:
        with Image.open(io.BytesIO(base64.b64decode(png, validate=True))) as opened:
            return torch.from_numpy(np.array(opened.convert("RGB")))[None]
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{where} of the script holds a picture that is damaged: {reason(error)}") from error

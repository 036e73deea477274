"""Scripts: JSON files with a schema that reproduce takes bit for bit, and that users can read and edit."""

import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from longtake.core.cue import Cue, CueFields, Guidance, LoraScales, Prompt, Seed, Steps
from longtake.core.errors import InputError, MediaError
from longtake.core.shapes import Pictures, PictureSize
from longtake.core.version import __version__
from longtake.media.targets import Target, reason
from longtake.sample.plans import InitFrames
from longtake.studio.commands import AddCue, Advance, PlanChunk
from longtake.studio.engine import Engine
from longtake.studio.session import TakeState, apply
from longtake.studio.timeline import path_to

VERSION = 1
MAX_SCRIPT_BYTES = 64 * 1024**2


class Part(BaseModel):
    """Common base of the parts of a script, which rejects unknown fields so that misspellings are reported."""

    model_config = ConfigDict(extra="forbid")


Threads = Annotated[int, Field(ge=1, le=10_000_000)]


class GivenPictures(Part):
    """Pictures that are given, not made."""

    png: list[str] = Field(description="The pictures, each a PNG file in base64", min_length=1, max_length=1000)
    chunks: int = Field(description="Chunks that they fill", ge=1)
    frames: int = Field(description="Frames of them that are shown", ge=1)


class ScriptCue(Part, CueFields):
    """A change, at a chunk or at a time."""

    chunk: int | None = Field(default=None, ge=0, description="The first chunk that shows it")
    at_s: float | None = Field(default=None, ge=0, description="Or the time; the first chunk that begins then or later")
    given: GivenPictures | None = None

    @model_validator(mode="after")
    def _can_be(self) -> "ScriptCue":
        if self.chunk is not None and self.at_s is not None:
            raise ValueError("say when by a chunk or by seconds, not by both")
        Cue.of(self, None if self.given is None else InitFrames(chunks=1, frames=1))
        return self


class Opening(Part):
    """How the take begins."""

    prompt: Prompt
    seed: Seed = 0
    steps: Steps | None = None
    guidance: Guidance | None = None
    negative_prompt: Prompt | None = None
    loras: LoraScales | None = None
    given: GivenPictures | None = None


class Script(Part):
    """A take. Leave out `model`, `weights` or `size` to play it on another."""

    version: Literal[1] = Field(description="Of this format")
    longtake: str = Field(default=__version__, description="That wrote it")
    model: str | None = None
    weights: str | None = Field(default=None, description="Hash of the weights that made the take")
    size: str | None = Field(default=None, description="Of the pictures, WIDTHxHEIGHT")
    opening: Opening
    cues: list[ScriptCue] = Field(default_factory=list, max_length=10_000)
    chunks: int = Field(default=0, ge=0, description="How many were made")
    rebuilt: list[Annotated[int, Field(ge=0)]] = Field(
        default_factory=list,
        max_length=10_000,
        description="Chunks that another process went on with, from the latents in the window",
    )
    threads: list[tuple[Threads, Threads]] = Field(
        default_factory=list,
        max_length=100_000,
        description="CPU threads that made them, [threads, chunks in a row]: results depend on them by rounding",
    )

    def save(self, path: Path | str) -> Path:
        """Write the script to a file.

        Raises:
            MediaError: the file cannot be written.
        """
        target = Target(Path(path))
        target.prepare()
        try:
            target.growing_path.write_text(self.model_dump_json(indent=2, exclude_none=True) + "\n", "utf-8")
        except OSError as error:
            target.discard()
            raise MediaError(f"cannot write {path}: {reason(error)}") from error
        target.commit(target.growing_path)
        return Path(path)

    @classmethod
    def load(cls, path: Path | str) -> "Script":
        """Read a script and check it.

        Raises:
            InputError: it is missing, too large, no JSON, of another version, or has invalid values.
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


def script_of(state: TakeState, engine: Engine) -> Script:
    """Script that reproduces a take up to its head: the opening and the cues that were applied."""
    path = path_to(state.head)
    cues = [_line_of(cue, node.idx) for node in path for _, cue in node.cues]
    opening = state.opening
    return Script(
        version=VERSION,
        model=engine.model.name,
        weights=engine.model.digest,
        size=str(engine.size),
        opening=Opening(
            prompt=opening.prompt,
            seed=opening.settings.seed,
            steps=opening.settings.steps,
            guidance=None if opening.settings.guidance == 1 else opening.settings.guidance,
            negative_prompt=opening.settings.negative_prompt,
            loras=dict(opening.settings.loras) or None,
            given=None if state.given is None else _pictures_of(state.given),
        ),
        cues=cues,
        chunks=len(path),
        rebuilt=[node.idx for node in path if node.plan.rebuilt],
        threads=runs_of([node.plan.threads for node in path]),
    )


def full_script_of(state: TakeState, engine: Engine) -> Script:
    """Script of a take with the cues that wait, from which `resumed_state` goes on."""
    script = script_of(state, engine)
    waiting = [_line_of(pending.cue, pending.at) for pending in (*state.due, *state.pending)]
    return script.model_copy(update={"cues": [*script.cues, *waiting]})


def runs_of(threads: Sequence[int | None]) -> list[tuple[int, int]]:
    """Numbers of threads of successive chunks as (threads, chunks in a row); empty where they are not known."""
    if None in threads:
        return []
    return [(number, len(list(same))) for number, same in groupby(number for number in threads if number is not None)]


def state_of(script: Script, engine: Engine) -> TakeState:
    """State of a new take in which all cues of the script are pending.

    Raises:
        InputError: the script is for another model, other weights or another size, or a cue is invalid.
    """
    for what, wanted, have in (
        ("the model", script.model, engine.model.name),
        ("the weights", script.weights, engine.model.digest),
        ("the size", script.size, str(engine.size)),
    ):
        if wanted is not None and wanted != have:
            raise InputError(
                f"the script was made with another {what.removeprefix('the ')}: {wanted}, here it is {have}; open that "
                f"one, or take {what} out of the script to play it as it comes"
            )
    opening = script.opening
    state = engine.begin(**opening.model_dump(exclude={"given"}))
    if opening.given is not None:
        state = replace(state, given=_given_of(engine, opening.given, "the opening"))
    return _with_cues(state, script, engine)


def resumed_state(script: Script, engine: Engine, latents: Sequence[Tensor], before: TakeState | None) -> TakeState:
    """State of a take whose chunks were made by another process, with those cues of its script pending that wait.

    Args:
        script: the take's script, with all cues.
        engine: maker of the further chunks.
        latents: latents of the chunks that were made, after those of `before`.
        before: state of a take of which this one is a branch, with its head where the branch begins; None: of no other.

    Raises:
        InputError: as `state_of`.
        MediaError: the latents cannot be written to disk.
    """
    state = state_of(script, engine) if before is None else _with_cues(before, script, engine)
    for latent in latents:
        state, _ = apply(state, PlanChunk(settled=True))
        state, _ = apply(state, Advance())
        assert state.head is not None
        engine.spool.write(state.head, latent)
    return state


def _with_cues(state: TakeState, script: Script, engine: Engine) -> TakeState:
    """State with those cues of a script pending that come after its head."""
    threads = (number for number, chunks in script.threads for _ in range(min(chunks, script.chunks)))
    state = replace(state, threads=tuple(islice(threads, script.chunks)), rebuilt=frozenset(script.rebuilt))
    made = -1 if state.head is None else state.head.idx
    for number, line in enumerate(script.cues, 1):
        if line.chunk is not None and line.chunk <= made:
            continue
        try:
            if line.prompt is not None:
                engine.checked_prompt(line.prompt)
            cue = Cue.of(line, None if line.given is None else _given_of(engine, line.given, f"cue {number}"))
            state, _ = apply(state, AddCue(cue=cue, at=line.chunk, at_s=line.at_s))
        except InputError as error:
            raise InputError(f"cue {number} of the script: {error}") from error
    return state


def _line_of(cue: Cue, chunk: int) -> ScriptCue:
    given = None if cue.given is None else _pictures_of(cue.given)
    return ScriptCue(chunk=chunk, given=given, **{name: getattr(cue, name) for name in CueFields.model_fields})


def _pictures_of(given: InitFrames) -> GivenPictures:
    png = [_png(picture) for picture in given.pictures]
    return GivenPictures(png=png, chunks=given.chunks, frames=given.frames)


def _given_of(engine: Engine, pictures: GivenPictures, where: str) -> InitFrames:
    decoded = torch.cat([_picture(png, engine.size, where) for png in pictures.png])
    given = engine.init_image(decoded) if pictures.frames == 1 else engine.init_clip(decoded)
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


def _picture(png: str, size: PictureSize, where: str) -> Pictures:
    try:
        with Image.open(io.BytesIO(base64.b64decode(png, validate=True))) as opened:
            fits = opened.size == (size.width, size.height)  # the size is checked before the pixels are decoded
            picture = opened.convert("RGB") if fits else None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{where} of the script holds a picture that is damaged: {reason(error)}") from error
    if picture is None:
        raise InputError(f"{where} of the script holds a picture of another size than the take's, {size}")
    return torch.from_numpy(np.array(picture))[None]

"""Shared parts of the commands that make takes: the opening of a take, its output file, the reports.

Torch is imported only when a model is opened, so that mistakes in the arguments are reported at once.
"""

import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longtake.cli import show_notice
from longtake.core.errors import InputError
from longtake.sample.cues import TimedPrompt, cues_from
from longtake.studio.subtitles import SUFFIXES, read_subtitles

if TYPE_CHECKING:
    from longtake.cli.recording import Report
    from longtake.core.shapes import Pictures, PictureSize
    from longtake.sample.model import Model
    from longtake.sample.words import UnknownWord
    from longtake.studio.controller import Chunk
    from longtake.studio.studio import Studio
    from longtake.studio.takes import Take
    from longtake.weights.live_loras import LoraChoice

MAX_CLIP_S = 600.0

Device = Annotated[
    str | None, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1; the first GPU if there is one, if not given.")
]
Fp8 = Annotated[
    bool, typer.Option("--fp8", help="Linear layers in 8 bits: half their memory, other bits. For large models.")
]
Scale = Annotated[
    int, typer.Option(metavar="N", min=1, max=4, help="Write the pictures 2, 3 or 4 times as large (Lanczos).")
]
LoraOption = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        metavar="[NAME=]FILE[:SCALE]",
        help="A LoRA for the model, 1 times if no scale is given; cues call it by its name. Several at will.",
    ),
]
Compiled = Annotated[
    bool, typer.Option("--compile", help="Passes as compiled programs: minutes at the start, then faster on a GPU.")
]


@dataclass(frozen=True, kw_only=True, slots=True)
class TakeRequest:
    """The opening of a take, and the changes that are known beforehand."""

    prompt: str | None
    then: Sequence[str] = ()
    script: Path | None = None  # a subtitle file
    image: Path | None = None
    video: Path | None = None

    def cues(self, seconds: float) -> tuple[TimedPrompt, ...]:
        """Return the prompts and their times, from the arguments or from the subtitle file.

        Raises:
            InputError: there is no prompt, prompts come from both, or an argument is invalid.
        """
        if self.image is not None and self.video is not None:
            raise InputError("a take begins with an image or with a video, not with both")
        if not (math.isfinite(seconds) and seconds > 0):
            raise InputError(f"seconds must be a positive number, got {seconds:g}")
        if self.script is None:
            if self.prompt is None:
                raise InputError("say what should be seen: a prompt, or --script with a file of prompts")
            return cues_from(self.prompt, self.then, seconds)
        if self.script.suffix.lower() not in SUFFIXES:
            raise InputError(f"{self.script} is no .vtt or .srt; a take's script is played by longtake replay")
        if self.prompt is not None or self.then:
            raise InputError("the prompts come from --script; leave out the prompt and --then")
        return tuple(cue for cue in read_subtitles(self.script) if cue.at_s < seconds)

    def take(
        self,
        studio: "Studio",
        cues: Sequence[TimedPrompt],
        *,
        seed: int,
        fit: Any = "crop",
        **settings: Any,
    ) -> "tuple[Take, Pictures | None]":
        """Return the take with its cues, and the pictures to be written before its own first frame, if any.

        Cue times count from the first new frame. A clip is written except for its end, which is part of the take.
        """
        prompt, first = cues[0].prompt, None
        if self.image is not None:
            take = studio.animate(self.image, prompt, seed=seed, fit=fit)
        elif self.video is not None:
            from longtake.media.clips import read_video

            clip = read_video(self.video, studio.size, studio.fps, MAX_CLIP_S, fit)
            take = studio.extend(clip, prompt, seed=seed)
            assert take.state.given is not None
            first = clip[: len(clip) - take.state.given.frames]
        else:
            take = studio.take(prompt, seed=seed, **settings)
        given_s = 0.0 if take.state.given is None else take.state.given.frames / studio.fps
        if take.state.given is not None and any(value is not None for value in settings.values()):
            take.cue(**settings)
        for cue in cues[1:]:
            take.cue(prompt=cue.prompt, at_s=cue.at_s + given_s)
        return take, first


@dataclass(kw_only=True)
class Recording:
    """An output file and its options."""

    out: Path
    audio: Path | None = None
    save_script: Path | None = None
    json_lines: bool = False
    chunk_log: bool = False
    device: str | None = None
    scale: int = 1
    lora: Sequence[str] = ()  # LoRAs to open the model with, as the user writes them
    load_s: float = 0.0

    def check(self, model: str | None) -> None:
        """Show that a model is being opened, and check that the files can be written and read.

        The notice comes first because importing torch takes a second.

        Raises:
            MediaError: a file cannot be written, its suffix is unknown, or the sound cannot be read.
            InputError: sound is given for a file that is not an .mp4.
        """
        show_notice(f"opening {model or 'the model'}")
        from longtake.media.animations import check_suffix
        from longtake.media.targets import check_target

        check_suffix(self.out)
        check_target(self.out)
        if self.save_script is not None:
            check_target(self.save_script)
        if self.audio is not None:
            from longtake.media.audio import check_audio

            if self.out.suffix.lower() != ".mp4":
                raise InputError(f"sound goes into an .mp4, not into {self.out.name}")
            check_audio(self.audio)

    def open(self, model: str, size: "PictureSize | None") -> "Studio":
        """Open a model and return a studio of it."""
        from longtake.studio.studio import open_studio

        started = time.perf_counter()
        studio = open_studio(model, size=size, device=self.device, loras=parsed_loras(self.lora))
        self._tell(studio.model)
        self.load_s = time.perf_counter() - started
        return studio

    def record(
        self,
        take: "Take",
        cues: Sequence[TimedPrompt],
        *,
        seconds: float | None = None,
        first: "Pictures | None" = None,
    ) -> None:
        """Write the take to the file. Ctrl-C ends it with the chunks made so far.

        Raises:
            typer.Exit: with code 130, after Ctrl-C.
            LongtakeError: what `Take.stream` and the writers raise.
        """
        from longtake.cli.recording import record

        given = take.state.given
        if seconds is not None and given is not None:
            seconds += given.frames / take.clock.fps
        made = record(
            take.model,
            self._chunks(take, seconds, first),
            cues=cues,
            size=take.size,
            num_chunks=_num_chunks(take, seconds),
            out=self.out,
            report=self._report(),
            load_s=self.load_s,
            unknown_words=unknown_words(take.model, cues),
            scale=self.scale,
        )
        if self.save_script is not None and take.head is not None:
            take.script().save(self.save_script)
        self._finish(interrupted=made.interrupted, has_file=made.path is not None)

    def record_teacher(self, model: str, cues: Sequence[TimedPrompt], **options: Any) -> None:
        """Write a clip generated by the teacher to the file."""
        from longtake.cli.recording import record
        from longtake.core.shapes import chunks_for
        from longtake.sample.model import open_model
        from longtake.studio.generate import generate

        started = time.perf_counter()
        opened = open_model(model, teacher=True, device=self.device)
        self._tell(opened)
        size = options["size"] or opened.size
        opened.preset.latent_grid(size)
        self.load_s = time.perf_counter() - started
        chunks = generate(opened, cues, **options)
        made = record(
            opened,
            chunks,
            cues=cues,
            size=size,
            num_chunks=chunks_for(
                options["seconds"],
                fps=opened.fps,
                chunk=opened.preset.stream.chunk,
                stride=opened.preset.codec.stride,
            ),
            out=self.out,
            report=self._report(),
            load_s=self.load_s,
            unknown_words=unknown_words(opened, cues),
            scale=self.scale,
        )
        self._finish(interrupted=made.interrupted, has_file=made.path is not None)

    def _tell(self, model: "Model") -> None:
        """Print the placement of a model that is not on the CPU."""
        if model.plan.placement.device.type != "cpu" and not self.json_lines:
            sys.stderr.write(f"{model.plan.told()}\n")

    def _finish(self, *, interrupted: bool, has_file: bool) -> None:
        if self.audio is not None and has_file:
            from longtake.media.audio import add_audio

            add_audio(self.out, self.audio)
        if interrupted:
            raise typer.Exit(130)

    def _chunks(self, take: "Take", seconds: float | None, first: "Pictures | None") -> "Iterator[Chunk]":
        """Yield the take's chunks with indices from 0; `first` is put before the frames of the first chunk."""
        for index, chunk in enumerate(take.stream(seconds)):
            frames = chunk.frames
            if index == 0 and first is not None and len(first):
                import torch

                frames = torch.cat((first, frames))
            yield replace(chunk, index=index, frames=frames)

    def _report(self) -> "Report":
        from longtake.cli.recording import ChunkLog, JsonLines, LiveLine

        return JsonLines() if self.json_lines else ChunkLog() if self.chunk_log else LiveLine()


def unknown_words(model: "Model", cues: Sequence[TimedPrompt]) -> "list[UnknownWord]":
    """The words of the prompts that the model was not trained on, without repetitions."""
    if model.words is None:
        return []
    return list(dict.fromkeys(word for cue in cues for word in model.words.unknown(cue.prompt)))


def parsed_lora(text: str) -> tuple[Path, float]:
    """Path and scale of FILE[:SCALE].

    Raises:
        InputError: the scale is no number.
    """
    path, colon, scale = text.rpartition(":")
    if not colon or Path(text).exists():
        return Path(text), 1.0
    try:
        return Path(path), float(scale)
    except ValueError:
        raise InputError(f'a LoRA is FILE or FILE:SCALE with a number as its scale, got "{text}"') from None


def parsed_loras(texts: Sequence[str]) -> "dict[str, LoraChoice]":
    """LoRAs by name from [NAME=]FILE[:SCALE]; the file's stem is the name that is not given.

    Raises:
        InputError: a scale is no number or out of range, or two have one name.
    """
    if not texts:
        return {}
    from longtake.weights.live_loras import LoraChoice

    found: dict[str, LoraChoice] = {}
    for text in texts:
        name, equals, rest = ("", "", text) if Path(text).exists() else text.partition("=")
        file, scale = parsed_lora(rest if equals else text)
        name = name if equals else file.stem
        if name in found:
            raise InputError(f'two LoRAs are called "{name}"; name one of them: --lora NAME={file}')
        found[name] = LoraChoice(file, scale)
    return found


def parsed_size(text: str) -> "PictureSize":
    """Parse a size in pixels, width x height, such as "160x96".

    Raises:
        InputError: the text is not a size.
    """
    from longtake.core.shapes import PictureSize

    return PictureSize.parse(text)


def _num_chunks(take: "Take", seconds: float | None) -> int:
    """Number of chunks that a stream will have; 0 if unknown."""
    if seconds is None:
        return take.num_scripted or 0
    from longtake.core.cue import Cue
    from longtake.studio.commands import AddCue
    from longtake.studio.session import apply

    state, _ = apply(replace(take.state, pending=()), AddCue(cue=Cue(seed=0), at_s=seconds))
    return state.pending[0].at - take.state.end.chunk

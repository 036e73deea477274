"""The one-page tale: prompt -> text states -> noise -> latents, chunk by chunk -> frames -> pictures.

    for chunk in generate(open_model("tiny-world"), cues, seconds=10, seed=0):
        show(chunk.pictures)

A chunk's pictures are handed out before the next chunk is begun, and memory is the same after an hour as
after a minute.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch

from longtake.core.clock import Stopwatch
from longtake.core.configs import Preset
from longtake.core.errors import InputError
from longtake.core.noise import noise_for
from longtake.core.shapes import Latent, Pictures, PictureSize, Span, TextStates, chunk_spans, chunks_for
from longtake.media.frames import to_pictures
from longtake.nets.dit import DiT, TextMemory
from longtake.nets.light_codec import CodecState, LightCodec
from longtake.nets.text import TextEncoder
from longtake.sample.cues import Cue
from longtake.sample.denoise import Schedule
from longtake.sample.rollout import Step, rollout
from longtake.sample.teacher import teacher_clip
from longtake.weights.presets import open_nets


@dataclass(frozen=True, kw_only=True)
class Model:
    """An opened model: the student or the teacher, its codec, its text encoder."""

    preset: Preset
    dit: DiT
    codec: LightCodec
    text_encoder: TextEncoder
    digest: str  # of the weights

    @property
    def name(self) -> str:
        return self.preset.name

    @property
    def fps(self) -> float:
        return self.preset.fps

    @property
    def size(self) -> PictureSize:
        return self.preset.size


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """What a viewer gets: some pictures, and where in the take they stand."""

    idx: int
    num_chunks: int
    start_s: float
    prompt: str
    pictures: Pictures
    timings: dict[str, float]  # seconds spent on text, denoise, remember (the clean pass before), decode


def open_model(name: str = "tiny-world", *, teacher: bool = False, device: str = "cpu") -> Model:
    """Open a packaged model or a model folder.

    Raises:
        WeightsError: the model is unknown, incomplete, damaged, or made for another network.
    """
    nets = open_nets(name, teacher=teacher, device=device)
    return Model(
        preset=nets.preset,
        dit=nets.dit,
        codec=nets.codec,
        text_encoder=TextEncoder(nets.preset.dit.text_len),
        digest=nets.digest,
    )


def generate(
    model: Model,
    cues: Sequence[Cue],
    *,
    seconds: float,
    seed: int = 0,
    size: PictureSize | None = None,
    steps: int | None = None,
    teacher: bool = False,
) -> Iterator[Chunk]:
    """Make a take, chunk by chunk. The same arguments and weights give the same bits.

    Args:
        model: opened with the same `teacher`.
        cues: the prompts and when they come; the first at 0 s. A cue takes effect with the first chunk
            that begins at or after it.
        seconds: the take lasts at least as long, to a whole chunk.
        seed: any integer.
        size: of the pictures; None: what the model was trained on.
        steps: denoising steps; None: the model's own.
        teacher: sample with the many-step teacher: a whole clip at once, no longer than its training clips.

    Raises:
        InputError: a size, a length or a number of steps that cannot be.
    """
    preset = model.preset
    shape = (size or preset.size).latent(preset.codec.stride, preset.dit.patch)
    num_chunks = chunks_for(seconds, fps=preset.fps, chunk=preset.stream.chunk, stride=preset.codec.stride)
    if steps is not None and not 1 <= steps <= 1000:
        raise InputError(f"steps must be between 1 and 1000, got {steps}")
    spans = list(islice(chunk_spans(preset.stream.chunk), num_chunks))
    prompts = [_prompt_at(cues, _start_s(preset, span)) for span in spans]
    watch = Stopwatch()
    make = _teacher_steps if teacher else _student_steps
    codec_state = CodecState()
    for step in make(model, prompts, shape, seed, steps, watch):
        with watch.span("decode"), torch.inference_mode():
            frames, codec_state = model.codec.decode(step.latent, codec_state)
            pictures = to_pictures(frames)
        yield Chunk(
            idx=step.span.idx,
            num_chunks=num_chunks,
            start_s=_start_s(preset, step.span),
            prompt=prompts[step.span.idx],
            pictures=pictures,
            timings=watch.read(),
        )


def _student_steps(
    model: Model,
    prompts: Sequence[str],
    shape: tuple[int, int],
    seed: int,
    steps: int | None,
    watch: Stopwatch,
) -> Iterator[Step]:
    """The student's rollout, timed."""
    preset = model.preset
    sampling = preset.student if steps is None else replace(preset.student, num_steps=steps)
    schedule = Schedule.of(model.dit, sampling)
    memories: dict[str, TextMemory] = {}  # of the prompt in force

    def text_for(span: Span) -> TextMemory:
        prompt = prompts[span.idx]
        if prompt not in memories:
            with watch.span("text"), torch.inference_mode():
                memories.clear()
                memories[prompt] = model.dit.read_text(_states(model, prompt))
        return memories[prompt]

    steps_made = rollout(model.dit, schedule, preset.stream, text_for, shape, seed, num_chunks=len(prompts))
    return watch.each("denoise", steps_made)


def _teacher_steps(
    model: Model,
    prompts: Sequence[str],
    shape: tuple[int, int],
    seed: int,
    steps: int | None,
    watch: Stopwatch,
) -> Iterator[Step]:
    """The teacher's clip, cut into chunks once it is done."""
    preset = model.preset
    chunk = preset.stream.chunk
    frames = len(prompts) * chunk
    if frames > preset.clip_latent_frames:
        longest = preset.codec.stride.frames(preset.clip_latent_frames) / preset.fps
        raise InputError(
            f"the teacher makes clips of at most {longest:.2f} s; ask for fewer seconds, "
            "or leave out --teacher to stream without end"
        )
    sampling = preset.teacher if steps is None else replace(preset.teacher, num_steps=steps)
    with watch.span("text"):
        text = torch.cat([_states(model, prompt) for prompt in prompts], 1)
        uncond = _states(model, "")
    with watch.span("denoise"):
        noise = noise_for(seed, ("clip",), (1, preset.dit.in_dim, frames, *shape)).to(text)
        clip: Latent = teacher_clip(model.dit, sampling, noise, text, uncond)
    for span in islice(chunk_spans(chunk), len(prompts)):
        yield Step(span, clip[:, :, span.start : span.stop])


def _states(model: Model, prompt: str) -> TextStates:
    return model.text_encoder(prompt).to(model.dit.patch_embedding.weight)


def _start_s(preset: Preset, span: Span) -> float:
    return span.frames(preset.codec.stride).start / preset.fps


def _prompt_at(cues: Sequence[Cue], start_s: float) -> str:
    """The last cue that is due."""
    return [cue.prompt for cue in cues if cue.at_s <= start_s + 1e-6][-1]

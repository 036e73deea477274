"""The one-page tale: prompt -> text states -> noise -> latents, chunk by chunk -> frames -> pictures.

    for chunk in generate(open_model("tiny-world"), cues, seconds=10, seed=0):
        show(chunk.pictures)

A chunk's pictures are handed out before the next chunk is begun, and memory is the same after an hour as
after a minute.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import torch

from longtake.core.clock import Stopwatch
from longtake.core.compiler import has_compiler
from longtake.core.configs import Preset, SamplingConfig
from longtake.core.errors import DeviceError, InputError
from longtake.core.noise import noise_for
from longtake.core.shapes import Latent, Pictures, PictureSize, Span, TextStates, chunk_spans, chunks_for
from longtake.core.vocabulary import Vocabulary
from longtake.media.frames import to_pictures
from longtake.nets.codec import Codec
from longtake.nets.dit import DiT, TextMemory
from longtake.nets.light_codec import CodecState
from longtake.nets.text import TextEncoder
from longtake.sample.cues import Cue
from longtake.sample.denoise import Schedule
from longtake.sample.rollout import Step, rollout
from longtake.sample.teacher import teacher_clip
from longtake.sample.words import Words
from longtake.weights.plan import Plan as MemoryPlan
from longtake.weights.presets import Nets, open_nets


@dataclass(frozen=True, kw_only=True)
class Model:
    """An opened model: the student or the teacher, its codec, its text encoder."""

    preset: Preset
    dit: DiT
    codec: Codec
    text_encoder: TextEncoder
    digest: str  # of the weights, and of what else decides bits: precision and window, where they are not the preset's
    is_teacher: bool
    plan: MemoryPlan
    painter: DiT | None = None  # the student as it follows a source video, where the model has learned that
    vocabulary: Vocabulary | None = None  # the words it was trained on, where that is known

    @classmethod
    def of(cls, nets: Nets, *, is_teacher: bool = False) -> "Model":
        """The nets, once they are there."""
        return cls(
            preset=nets.preset,
            dit=nets.dit,
            codec=nets.codec,
            text_encoder=nets.text_encoder,
            digest=nets.digest,
            is_teacher=is_teacher,
            plan=nets.plan,
            painter=nets.painter,
            vocabulary=nets.vocabulary,
        )

    def compile(self) -> None:
        """Make the student's passes compiled programs: minutes before the first chunks, less time for those after.

        Raises:
            DeviceError: there is no C++ compiler.
        """
        if not has_compiler():
            raise DeviceError("compiled programs need a C++ compiler, and neither g++ nor clang++ is on the path")
        for dit in (self.dit, self.painter):
            if dit is not None:
                dit.compile_passes()

    def with_steps(self, num: int) -> "Model":
        """The same networks with another number of denoising steps, evenly spaced."""
        own = self.preset.teacher if self.is_teacher else self.preset.student
        changed = {"teacher" if self.is_teacher else "student": own.with_steps(num)}
        return replace(self, preset=replace(self.preset, **changed))

    @property
    def following(self) -> "Model":
        """The model as it follows a source: with its painter, where it has one."""
        return self if self.painter is None else replace(self, dit=self.painter)

    @cached_property
    def words(self) -> Words | None:
        """Which words of a prompt it was not trained on; None where nobody knows what it was trained on."""
        return None if self.vocabulary is None else Words(vocabulary=self.vocabulary, encoder=self.text_encoder)

    @property
    def strength(self) -> float:
        """At which a source enters, if nobody says: a painter keeps to its shapes, so none of its look need be left."""
        return 0.6 if self.painter is None else 1.0

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
    timings: dict[str, float]  # seconds: text, denoise (with the clean pass before it), decode


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A take before it is made: everything that decides its bits, besides the weights."""

    cues: tuple[Cue, ...]
    num_chunks: int
    shape: tuple[int, int]  # latent height and width
    seed: int
    sampling: SamplingConfig


def open_model(
    name: str = "tiny-world",
    *,
    teacher: bool = False,
    device: str | None = None,
    size: PictureSize | None = None,
    fp8: bool = False,
    compiled: bool = False,
) -> Model:
    """Open a packaged or imported model, or a model folder: its student, or the many-step teacher.

    Args:
        name: of the model, or its folder.
        teacher: open that.
        device: "cpu", "cuda", "cuda:1"; None: the first GPU if there is one.
        size: for which memory is planned; None: what the model was trained on.
        fp8: keep the network's linear layers in 8 bits: half the memory, other bits.
        compiled: see `Model.compile`.

    Raises:
        WeightsError: the model is unknown, incomplete, damaged, or made for another network.
        DeviceError: the device is not there, its memory is too small, it has no 8-bit floats where `fp8` wants them,
            or there is no compiler.
    """
    model = Model.of(open_nets(name, teacher=teacher, device=device, size=size, fp8=fp8), is_teacher=teacher)
    if compiled:
        model.compile()
    return model


def generate(
    model: Model,
    cues: Sequence[Cue],
    *,
    seconds: float,
    seed: int = 0,
    size: PictureSize | None = None,
    steps: int | None = None,
) -> Iterator[Chunk]:
    """Make a take, chunk by chunk. The same arguments and weights give the same bits.

    Args:
        model: a teacher makes the whole clip before the first chunk, and no longer one than it was trained on.
        cues: the prompts and when they come; the first at 0 s. A cue takes effect with the first chunk
            that begins at or after it.
        seconds: the take lasts at least as long, to a whole chunk.
        seed: any integer.
        size: of the pictures; None: what the model was trained on.
        steps: denoising steps; None: the model's own.

    Raises:
        InputError: a size, a length, a number of steps or a prompt that cannot be.
    """
    plan = plan_for(model, cues, seconds, seed, size, steps)
    watch = Stopwatch()
    codec_state = CodecState()
    for step in (_teacher_steps if model.is_teacher else _student_steps)(model, plan, watch):
        with watch.span("decode"), torch.inference_mode():
            frames, codec_state = model.codec.decode(step.latent, codec_state)
            pictures = to_pictures(frames)
        yield Chunk(
            idx=step.span.idx,
            num_chunks=plan.num_chunks,
            start_s=_start_s(model.preset, step.span),
            prompt=_prompt_at(model, plan, step.span),
            pictures=pictures,
            timings=watch.read(),
        )


def plan_for(
    model: Model,
    cues: Sequence[Cue],
    seconds: float,
    seed: int,
    size: PictureSize | None,
    steps: int | None,
) -> Plan:
    """Check a request and work it out. Raises InputError as `generate` does."""
    preset = model.preset
    shape = preset.latent_grid(size or preset.size)
    num_chunks = chunks_for(seconds, fps=preset.fps, chunk=preset.stream.chunk, stride=preset.codec.stride)
    if model.is_teacher and num_chunks * preset.stream.chunk > preset.clip_latent_frames:
        longest = preset.codec.stride.frames(preset.clip_latent_frames) / preset.fps
        raise InputError(
            f"the teacher makes clips of at most {longest:.2f} s; ask for fewer seconds, "
            "or use the student to stream without end"
        )
    if steps is not None and not 1 <= steps <= 1000:
        raise InputError(f"steps must be between 1 and 1000, got {steps}")
    for cue in cues:
        num_tokens = model.text_encoder.num_tokens(cue.prompt)
        if num_tokens > preset.dit.text_len:
            raise InputError(
                f"the prompt has {num_tokens} tokens with all its changes, {preset.name} reads {preset.dit.text_len}; "
                f'shorten it: "{cue.prompt[:60]}..."'
            )
    own = preset.teacher if model.is_teacher else preset.student
    return Plan(
        cues=tuple(cues),
        num_chunks=num_chunks,
        shape=shape,
        seed=seed,
        sampling=own.with_steps(steps),
    )


def _student_steps(model: Model, plan: Plan, watch: Stopwatch) -> Iterator[Step]:
    """The student's rollout, timed."""
    schedule = Schedule.of(model.dit, plan.sampling)
    read: dict[str, TextMemory] = {}  # the prompt in force

    def text_for(span: Span) -> TextMemory:
        prompt = _prompt_at(model, plan, span)
        if prompt not in read:
            with watch.span("text"), torch.inference_mode():
                read.clear()
                read[prompt] = model.dit.read_text(_states(model, prompt))
        return read[prompt]

    steps = rollout(
        model.dit, schedule, model.preset.stream, text_for, plan.shape, plan.seed, num_chunks=plan.num_chunks
    )
    return watch.each("denoise", steps)


def _teacher_steps(model: Model, plan: Plan, watch: Stopwatch) -> Iterator[Step]:
    """The teacher's clip, cut into chunks once it is done."""
    spans = list(islice(chunk_spans(model.preset.stream.chunk), plan.num_chunks))
    with watch.span("text"):
        text = torch.cat([_states(model, _prompt_at(model, plan, span)) for span in spans], 1)
        uncond = _states(model, model.preset.negative_prompt)
    with watch.span("denoise"):
        shape = (1, model.preset.dit.in_dim, spans[-1].stop, *plan.shape)
        noise = noise_for(plan.seed, ("clip",), shape).to(text)
        clip: Latent = teacher_clip(model.dit, plan.sampling, noise, text, uncond)
    for span in spans:
        yield Step(span, clip[:, :, span.start : span.stop])


def _states(model: Model, prompt: str) -> TextStates:
    return model.text_encoder(prompt).to(model.dit.device, model.dit.latent_dtype)


def _start_s(preset: Preset, span: Span) -> float:
    return span.frames(preset.codec.stride).start / preset.fps


def _prompt_at(model: Model, plan: Plan, span: Span) -> str:
    """The last cue that is due."""
    start_s = _start_s(model.preset, span)
    return [cue.prompt for cue in plan.cues if cue.at_s <= start_s + 1e-6][-1]

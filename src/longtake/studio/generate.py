"""Generation of a take whose cues are known in advance, by the student or the teacher.

    for chunk in generate(open_model("tiny-world"), cues, seconds=10, seed=0):
        show(chunk.frames)

With the student, this streams a `Take` with the same cues, so the results are equal bit for bit.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

import torch

from longtake.core.clock import Stopwatch
from longtake.core.cue import Cue, input_errors
from longtake.core.errors import InputError
from longtake.core.noise import noise_for
from longtake.core.shapes import PictureSize, TextStates, chunk_spans, chunks_for
from longtake.media.frames import to_pictures
from longtake.nets.light_codec import CodecState
from longtake.sample.cues import TimedPrompt
from longtake.sample.model import Model
from longtake.sample.teacher import teacher_clip
from longtake.studio.controller import Chunk
from longtake.studio.engine import readable_prompt
from longtake.studio.studio import Studio


def generate(
    model: Model,
    cues: Sequence[TimedPrompt],
    *,
    seconds: float,
    seed: int = 0,
    size: PictureSize | None = None,
    steps: int | None = None,
) -> Iterator[Chunk]:
    """Make a take, chunk by chunk. The same arguments and weights give the same bits.

    Args:
        model: the model; a teacher makes the whole clip before the first chunk, at most as long as in its training.
        cues: the timed prompts, the first at 0 s. A cue takes effect at the first chunk that begins at its time or
            later.
        seconds: duration of the take, rounded up to a whole chunk.
        seed: any integer.
        size: picture size; None: the size that the model was trained on.
        steps: denoising steps; None: the model's default.

    Raises:
        InputError: a size, a duration, a number of steps or a prompt is invalid.
    """
    if model.is_teacher:
        yield from _by_teacher(model, cues, seconds, seed, size, steps)
        return
    opening, *later = cues
    with Studio(model, size=size) as studio:
        take = studio.take(opening.prompt, seed=seed, steps=steps)
        for cue in later:
            take.cue(prompt=cue.prompt, at_s=cue.at_s)
        yield from take.stream(seconds)


def _by_teacher(
    model: Model, cues: Sequence[TimedPrompt], seconds: float, seed: int, size: PictureSize | None, steps: int | None
) -> Iterator[Chunk]:
    """Sample a clip with the teacher, and yield it in chunks."""
    preset, stride = model.preset, model.preset.codec.stride
    shape = preset.latent_grid(size or preset.size)
    with input_errors():
        sampling = preset.teacher.with_steps(Cue(seed=seed, steps=steps).steps)  # checks the ranges
    num_chunks = chunks_for(seconds, fps=preset.fps, chunk=preset.stream.chunk, stride=stride)
    if num_chunks * preset.stream.chunk > preset.clip_latent_frames:
        longest = stride.frames(preset.clip_latent_frames) / preset.fps
        raise InputError(
            f"the teacher makes clips of at most {longest:.2f} s; ask for fewer seconds, "
            "or use the student to stream without end"
        )
    spans = list(islice(chunk_spans(preset.stream.chunk), num_chunks))
    starts_s = [span.frames(stride).start / preset.fps for span in spans]
    prompts = [
        readable_prompt(model, [cue.prompt for cue in cues if cue.at_s <= start_s + 1e-6][-1]) for start_s in starts_s
    ]

    def states(prompt: str) -> TextStates:
        return model.text_encoder(prompt).to(model.dit.device, model.dit.latent_dtype)

    watch, state = Stopwatch(), CodecState()
    with watch.span("text"):
        text, uncond = torch.cat([states(prompt) for prompt in prompts], 1), states(preset.negative_prompt)
    with watch.span("denoise"):
        noise = noise_for(seed, ("clip",), (1, preset.dit.in_dim, spans[-1].stop, *shape)).to(text)
        clip = teacher_clip(model.dit, sampling, noise, text, uncond)
    for span, start_s, prompt in zip(spans, starts_s, prompts, strict=True):
        with watch.span("decode"), torch.inference_mode():
            frames, state = model.codec.decode(clip[:, :, span.start : span.stop], state)
            pictures = to_pictures(frames)
        yield Chunk(index=span.idx, frames=pictures, start_s=start_s, prompt=prompt, cue=None, timings=watch.read())

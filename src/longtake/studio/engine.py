"""A model on a device with the memories of all takes made on it. One step at a time, whichever thread asks."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from longtake.core.cue import Cue, Settings, input_errors
from longtake.core.errors import InputError
from longtake.core.limits import MAX_PROMPT_CHARACTERS, checked_text
from longtake.core.shapes import Latent, Pictures, PictureSize
from longtake.media.clips import Fit, read_image
from longtake.nets.light_codec import CodecState
from longtake.sample.memory import Memory
from longtake.sample.model import Model
from longtake.sample.plans import InitFrames
from longtake.sample.sampler import ChunkRequest, ChunkResult, Sampler, ShouldContinue, never_cancel
from longtake.studio.session import TakeState
from longtake.studio.snapshots import Snapshots
from longtake.studio.sources import checked_pictures
from longtake.studio.spool import Spool
from longtake.studio.timeline import Clock, InForce, Node, path_to
from longtake.weights.plan import memory_advice


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkJob:
    """A planned chunk of one take, as the engine makes it."""

    node: Node
    source: Latent | None = None  # latents that it follows
    should_continue: ShouldContinue = never_cancel


class Engine:
    """Makes chunks after their parents, whose memories it keeps, or computes again where they were dropped."""

    def __init__(self, model: Model, size: PictureSize | None, *, host_bytes: int, device_bytes: int) -> None:
        """Args:
        model: a student.
        size: of the pictures; None: what the model was trained on.
        host_bytes: of host memory for snapshots.
        device_bytes: of a GPU's memory for them, used before the host's.
        """
        self.model = model
        self.sampler = Sampler.of(model, size)
        self.snapshots = Snapshots(self.sampler.device, host_bytes=host_bytes, device_bytes=device_bytes)
        self.spool = Spool()
        self._device = threading.Lock()

    @property
    def size(self) -> PictureSize:
        return self.sampler.size

    @property
    def clock(self) -> Clock:
        stride, chunk = self.model.preset.codec.stride, self.model.preset.stream.chunk
        return Clock(fps=self.model.fps, opening_frames=stride.frames(chunk), chunk_frames=stride.time * chunk)

    # Chunks.

    def layout(self, node: Node) -> tuple[object, ...] | None:
        """Planned chunks of equal layout can be made in one step; None: this one is made alone."""
        memory, missing = self.snapshots.way_to(node.parent)
        return None if missing else ChunkRequest(plan=node.plan, memory=memory).layout(self.sampler.stream)

    def make(self, jobs: Sequence[ChunkJob]) -> list[ChunkResult | None]:
        """Make planned chunks in one step; those of another layout than the first one are left out.

        Args:
            jobs: of different takes.

        Returns:
            A result for each; None where it was cancelled or left out.

        Raises:
            MediaError: latents cannot be kept.
            DeviceError: the device's memory is full.
        """
        with self._device, memory_advice(self.model.name):
            requests = [
                ChunkRequest(
                    plan=job.node.plan,
                    memory=self._memory_after(job.node.parent),
                    source=job.source,
                    should_continue=job.should_continue,
                )
                for job in jobs
            ]
            layouts = [request.layout(self.sampler.stream) for request in requests]
            fit = [i == 0 or (layout is not None and layout == layouts[0]) for i, layout in enumerate(layouts)]
            made = iter(self.sampler.step([r for r, fits in zip(requests, fit, strict=True) if fits]))
            results = [next(made) if fits else None for fits in fit]
            for job, result in zip(jobs, results, strict=True):
                if result is not None:
                    self.spool.write(job.node, result.latent)
                    self.snapshots.keep(job.node, result.memory)
            return results

    def num_missing(self, node: Node | None) -> int:
        """Chunks whose memory must be computed again before the one after `node` can be made."""
        with self._device:
            return self.snapshots.num_missing(node)

    def decoded(self, head: Node) -> Iterator[Pictures]:
        """The pictures of all chunks up to `head`, decoded from their latents."""
        state = CodecState()
        for node in path_to(head):
            if node.parent is None or node.plan.given or node.plan.transition == "cut":
                state = CodecState()
            with self._device:
                pictures, state = self.sampler.decode(self.spool.read(node), state)
            yield pictures[: node.num_frames]

    def encode(self, pictures: Pictures, state: CodecState) -> tuple[Latent, CodecState]:
        """Latents of the next pictures of a source."""
        with self._device:
            return self.sampler.encode(pictures, state)

    def _memory_after(self, node: Node | None) -> Memory:
        found = self.snapshots.find(node)
        memory = found.memory
        for missing in found.missing:
            request = ChunkRequest(plan=missing.plan, memory=memory, known=self.spool.read(missing))
            (result,) = self.sampler.step([request])
            assert result is not None, "nothing cancels it"
            memory = result.memory
        if node is not None and found.missing:
            self.snapshots.keep(node, memory)
        return memory

    # What takes are begun and changed with.

    def begin(self, prompt: str, **settings: Any) -> TakeState:
        """The bookkeeping of a take of which nothing has been made.

        Args:
            prompt: what it shows.
            settings: by the names of `Settings`; None: the default.

        Raises:
            InputError: the prompt is empty or too long, or a value is out of range.
        """
        with input_errors():
            cue = Cue(prompt=self.checked_prompt(prompt), **settings)
        assert cue.prompt is not None
        return TakeState(
            clock=self.clock,
            opening=InForce(prompt=cue.prompt, settings=Settings().after(cue)),
            join=self.full_prompt,
        )

    def checked_prompt(self, prompt: str) -> str:
        """A prompt that the model can read whole.

        Raises:
            InputError: it is empty or too long.
        """
        return readable_prompt(self.model, prompt)

    def full_prompt(self, base: str, change: str) -> str:
        """A prompt that goes on with a change; the oldest changes are left out where the model could not read all.

        Args:
            base: an opening and changes, joined by ", ".
            change: one that the model can read by itself.
        """
        parts = [*base.split(", "), change]
        while len(parts) > 1 and not self._is_readable(", ".join(parts)):
            del parts[1 if len(parts) > 2 else 0]
        return ", ".join(parts)

    def init_image(self, image: Path | str | Pictures, fit: Fit = "crop") -> InitFrames:
        """A picture that a take can begin with or go on from.

        Raises:
            MediaError: the file cannot be read.
        """
        if not isinstance(image, Tensor):
            image = read_image(Path(image), self.size, fit)
        return _init_frames(checked_pictures(image, self.size)[:1], chunks=1)

    def init_clip(self, pictures: Pictures) -> InitFrames:
        """The end of a clip: as much as fits the window beside a chunk.

        Raises:
            InputError: it is shorter than a chunk.
        """
        pictures = checked_pictures(pictures, self.size)
        stream, stride = self.model.preset.stream, self.model.preset.codec.stride
        for chunks in range(stream.window // stream.chunk - 1, 0, -1):
            frames = stride.frames(chunks * stream.chunk)
            if frames <= len(pictures):
                return _init_frames(pictures[-frames:], chunks=chunks)
        raise InputError(
            f"the clip has {len(pictures)} frames at {self.model.fps:g} fps; {self.clock.opening_frames} are needed to "
            "go on"
        )

    def _is_readable(self, prompt: str) -> bool:
        tokens = self.model.text_encoder.num_tokens(prompt)
        return len(prompt) <= MAX_PROMPT_CHARACTERS and tokens <= self.model.preset.dit.text_len


def readable_prompt(model: Model, prompt: str) -> str:
    """A prompt that a model can read whole, without surrounding white space.

    Raises:
        InputError: it is empty, or too long.
    """
    text = checked_text("the prompt", prompt)
    tokens, most = model.text_encoder.num_tokens(text), model.preset.dit.text_len
    if tokens > most:
        raise InputError(f'the prompt has {tokens} tokens, {model.name} reads {most}: "{text[:60]}..."')
    return text


def _init_frames(pictures: Pictures, chunks: int) -> InitFrames:
    return InitFrames(chunks=chunks, frames=len(pictures), pictures=pictures.contiguous().cpu().clone())

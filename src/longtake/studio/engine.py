"""Engine of a model: makes chunks on a device, one step at a time for all threads, and keeps the takes' memories."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from longtake.core.cue import Cue, Settings, check_loras, input_errors
from longtake.core.errors import InputError
from longtake.core.limits import MAX_PROMPT_CHARACTERS, checked_text
from longtake.core.shapes import Latent, Pictures, PictureSize
from longtake.core.threads import compute_with, thread_budget
from longtake.media.clips import Fit, read_image
from longtake.nets.light_codec import CodecState
from longtake.sample.memory import Memory
from longtake.sample.model import Model
from longtake.sample.plans import InitFrames
from longtake.sample.sampler import ChunkRequest, ChunkResult, Sampler, ShouldContinue, never_cancel
from longtake.sample.window import LatentWindow, kept_frames, num_apart
from longtake.studio.session import TakeState
from longtake.studio.snapshots import Snapshots
from longtake.studio.sources import checked_pictures
from longtake.studio.spool import Spool
from longtake.studio.timeline import Clock, InForce, Node, path_to
from longtake.weights.plan import memory_advice


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkJob:
    """Planned chunk of one take, as input to the engine."""

    node: Node
    source: Latent | None = None  # latents of the source that the chunk follows
    should_continue: ShouldContinue = never_cancel


class Engine:
    """Maker of chunks, which keeps the memories of earlier chunks and recomputes those that were evicted."""

    def __init__(self, model: Model, size: PictureSize | None, *, host_bytes: int, device_bytes: int) -> None:
        """Create an engine.

        Args:
            model: a student.
            size: picture size; None: the size that the model was trained on.
            host_bytes: byte budget of snapshots in host memory.
            device_bytes: byte budget of snapshots in GPU memory, which is used first.
        """
        self.model = model
        self.sampler = Sampler.of(model, size)
        self.snapshots = Snapshots(self.sampler.device, host_bytes=host_bytes, device_bytes=device_bytes)
        self.spool = Spool()
        self._device = threading.Lock()
        self._budget = thread_budget() if self.sampler.device.type == "cpu" else None

    @property
    def size(self) -> PictureSize:
        return self.sampler.size

    @property
    def clock(self) -> Clock:
        stride, chunk = self.model.preset.codec.stride, self.model.preset.stream.chunk
        return Clock(fps=self.model.fps, opening_frames=stride.frames(chunk), chunk_frames=stride.time * chunk)

    # Making of chunks.

    def threads(self) -> int | None:
        """CPU threads for the next chunk, fewer while other programs use cores; None on a GPU."""
        return None if self._budget is None else self._budget.threads()

    def layout(self, node: Node) -> tuple[object, ...] | None:
        """Key under which planned chunks can share a step; None: the chunk needs a step of its own."""
        memory, missing = self.snapshots.way_to(node.parent)
        return None if missing else ChunkRequest(plan=node.plan, memory=memory).layout(self.sampler.stream)

    def make(self, jobs: Sequence[ChunkJob]) -> list[ChunkResult | None]:
        """Make planned chunks in one step; those whose layout differs from the first one's are left out.

        Args:
            jobs: planned chunks of different takes.

        Returns:
            A result per job; None if it was cancelled or left out.

        Raises:
            MediaError: latents cannot be written to disk.
            DeviceError: the device's memory is full.
        """
        with self._device, memory_advice(self.model.name):
            requests = [
                ChunkRequest(
                    plan=job.node.plan,
                    memory=Memory() if job.node.plan.rebuilt else self._memory_after(job.node.parent),
                    window=self._window_before(job.node),
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
        """Number of chunks whose memory must be recomputed before the chunk after `node` can be made."""
        with self._device:
            return self.snapshots.num_missing(node)

    def decoded(self, head: Node) -> Iterator[Pictures]:
        """Yield the pictures of all chunks up to `head`, decoded from their latents."""
        state = CodecState()
        for node in path_to(head):
            if node.parent is None or node.plan.given or node.plan.transition == "cut":
                state = CodecState()
            with self._device:
                compute_with(node.plan.threads)
                if (window := self._window_before(node)) is not None and node.plan.transition != "cut":
                    state = self.sampler.decoder_after(window)
                pictures, state = self.sampler.decode(self.spool.read(node), state)
            yield pictures[: node.num_frames]

    def encode(self, pictures: Pictures, state: CodecState) -> tuple[Latent, CodecState]:
        """Encode the next pictures of a source."""
        with self._device:
            return self.sampler.encode(pictures, state)

    def _memory_after(self, node: Node | None) -> Memory:
        found = self.snapshots.find(node)
        memory = found.memory
        last_rebuilt = max((i for i, missing in enumerate(found.missing) if missing.plan.rebuilt), default=0)
        for missing in found.missing[last_rebuilt:]:
            request = ChunkRequest(
                plan=missing.plan,
                memory=memory,
                known=self.spool.read(missing),
                window=self._window_before(missing),
            )
            (result,) = self.sampler.step([request])
            assert result is not None, "nothing cancels it"
            memory = result.memory
        if node is not None and found.missing:
            self.snapshots.keep(node, memory)
        return memory

    def _window_before(self, node: Node) -> LatentWindow | None:
        """LatentWindow that the memory before a chunk is rebuilt from; None if its plan does not say so."""
        if not node.plan.rebuilt or node.parent is None:
            return None
        path = path_to(node.parent)
        nodes = {earlier.idx: earlier for earlier in path}
        frames = kept_frames((earlier.plan for earlier in path), self.sampler.stream)
        pieces = tuple((start, self._latents(nodes, start, stop)) for start, stop in frames)
        return LatentWindow(pieces=pieces, wording=node.parent.plan.wording, num_apart=num_apart(frames))

    def _latents(self, nodes: Mapping[int, Node], start: int, stop: int) -> Latent:
        """Latent frames `start` to `stop` of a path, which lie in one chunk; a clip's belong to the last."""
        chunk = self.sampler.stream.chunk
        node = next(nodes[idx] for idx in range(start // chunk, max(nodes) + 1) if idx in nodes)
        latent = self.spool.read(node)
        first = (node.idx + 1) * chunk - latent.shape[2]
        return latent[:, :, start - first : stop - first]

    # Inputs that takes are begun and changed with.

    def begin(self, prompt: str, **settings: Any) -> TakeState:
        """Create the state of a new take without chunks.

        Args:
            prompt: the opening prompt.
            settings: fields of `Settings`; None: the default.

        Raises:
            InputError: the prompt is empty or too long, a value is out of range, or a LoRA is unknown.
        """
        with input_errors():
            cue = Cue(prompt=self.checked_prompt(prompt), **settings)
        assert cue.prompt is not None
        scales = {} if self.model.loras is None else self.model.loras.opening
        check_loras(cue.loras, scales)
        return TakeState(
            clock=self.clock,
            scales=scales,
            opening=InForce(prompt=cue.prompt, settings=Settings().after(cue)),
            join=self.full_prompt,
        )

    def checked_prompt(self, prompt: str) -> str:
        """Check a prompt with `readable_prompt`.

        Raises:
            InputError: it is empty or too long.
        """
        return readable_prompt(self.model, prompt)

    def full_prompt(self, base: str, change: str) -> str:
        """Append a change to a prompt, dropping the oldest changes if the result is too long for the model.

        Args:
            base: an opening prompt and its changes, joined by ", ".
            change: a change that is by itself not too long.
        """
        parts = [*base.split(", "), change]
        while len(parts) > 1 and not self._is_readable(", ".join(parts)):
            del parts[1 if len(parts) > 2 else 0]
        return ", ".join(parts)

    def init_image(self, image: Path | str | Pictures, fit: Fit = "crop") -> InitFrames:
        """Convert a picture to input with which a take can begin or continue.

        Raises:
            MediaError: the file cannot be read.
        """
        if not isinstance(image, Tensor):
            image = read_image(Path(image), self.size, fit)
        return _init_frames(checked_pictures(image, self.size)[:1], chunks=1)

    def init_clip(self, pictures: Pictures) -> InitFrames:
        """Convert the end of a clip, as many chunks as fit the window beside a new one, to input for a take.

        Raises:
            InputError: the clip is shorter than a chunk.
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
    """Strip the white space around a prompt, and check that the model reads it without truncation.

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

"""The door of the studio: an opened model on which takes are made and directed.

    studio = longtake.open("tiny-world")
    take = studio.take("a red boat on the sea", seed=7)
    for chunk in take.stream(seconds=10):
        show(chunk.frames)
        if chunk.index == 4:
            receipt = take.cue("night falls")

Bookkeeping is `session.apply`; this file is the only one that joins it to the model. One chunk is made at a time,
whichever thread asks; a take may be cued from any thread while another one streams it.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from longtake.core.errors import InputError
from longtake.core.shapes import Latent, Pictures, PictureSize
from longtake.media.clips import Fit, read_image, read_video, stream_video
from longtake.nets.light_codec import CodecState
from longtake.sample.cues import MAX_PROMPT_CHARACTERS, checked_text
from longtake.sample.generate import Model, open_model
from longtake.sample.plans import Given
from longtake.sample.sampler import GoOn, Made, Memory, OvertakenError, Sampler, Wanted, always
from longtake.studio.commands import Cue
from longtake.studio.script import Script, state_of
from longtake.studio.session import TakeState, upcoming
from longtake.studio.snapshots import Snapshots
from longtake.studio.sources import IteratorSource, Source, checked_pictures
from longtake.studio.spool import Spool
from longtake.studio.takes import Chunk, Restyled, Take
from longtake.studio.timeline import Clock, Node, Settings, path_to
from longtake.weights.plan import memory_advice

MiB = 1024**2


class Studio:
    """A model, ready to be directed. Close it (or use it as a context manager) to remove its temporary files."""

    def __init__(
        self,
        model: Model,
        *,
        size: PictureSize | None = None,
        snapshot_mib: int = 512,
        device_snapshot_mib: int | None = None,
    ) -> None:
        """Args:
        model: a student.
        size: of the pictures; None: what the model was trained on.
        snapshot_mib: of host memory for going back at once; beyond it, chunks are made again.
        device_snapshot_mib: of a GPU's memory, before the host's is used; None: what the plan leaves over.
        """
        on_device = model.plan.spare_bytes if device_snapshot_mib is None else device_snapshot_mib * MiB
        self.sampler = Sampler(model, size)
        self.follower = Sampler(model.following, size)  # of a source
        self.snapshots = Snapshots(self.sampler.device, host_bytes=snapshot_mib * MiB, device_bytes=on_device)
        self.spool = Spool()
        self._device = threading.Lock()

    @property
    def model(self) -> Model:
        return self.sampler.model

    @property
    def fps(self) -> float:
        return self.model.fps

    @property
    def size(self) -> PictureSize:
        return self.sampler.size

    @property
    def clock(self) -> Clock:
        stride, chunk = self.model.preset.codec.stride, self.model.preset.stream.chunk
        return Clock(fps=self.fps, opening_frames=stride.frames(chunk), chunk_frames=stride.time * chunk)

    def take(self, prompt: str, *, seed: int = 0, steps: int | None = None, guidance: float | None = None) -> Take:
        """A new take. Nothing is computed before it is streamed.

        Args:
            prompt: what it shows.
            seed: any integer of 64 bits.
            steps: denoising steps a chunk; None: the model's own.
            guidance: see `Take.cue`; None: 1.

        Raises:
            InputError: the prompt is empty or too long, or a number is out of range.
        """
        return Take(self, self.begin(prompt, seed, steps, guidance))

    def animate(self, image: Path | str | Pictures, prompt: str, *, seed: int = 0, fit: Fit = "crop") -> Take:
        """A take that begins with a picture and lets the prompt move it.

        Args:
            image: a file that Pillow reads, or pictures [1, height, width, 3] of the studio's size.
            prompt: what happens.
            seed: any integer of 64 bits.
            fit: "crop" fills the frame and cuts what stands out, "fit" shows all between black bars.

        Raises:
            MediaError: the file cannot be read.
            InputError: as `take`.
        """
        return Take(self, replace(self.begin(prompt, seed), given=self.give_image(image, fit)))

    def extend(
        self, video: Path | str | Pictures, prompt: str, *, seed: int = 0, fit: Fit = "crop", max_seconds: float = 600
    ) -> Take:
        """A take that goes on where a clip ends. Its own first frames are the last ones of the clip.

        Args:
            video: a file that FFmpeg reads, or pictures [frames, height, width, 3] at the studio's fps.
            prompt: what it goes on with.
            seed: any integer of 64 bits.
            fit: as in `animate`.
            max_seconds: a longer file is refused.

        Raises:
            MediaError: the file cannot be read, or is too long.
            InputError: the clip is shorter than a chunk; or as `take`.
        """
        pictures = video
        if not isinstance(pictures, Tensor):
            pictures = read_video(Path(pictures), self.size, self.fps, max_seconds, fit)
        return Take(self, replace(self.begin(prompt, seed), given=self.give_clip(pictures)))

    def restyle(
        self,
        source: Source | Path | str | Tensor | np.ndarray | Iterable[Tensor],
        prompt: str,
        *,
        strength: float | None = None,
        seed: int = 0,
        fit: Fit = "crop",
    ) -> Restyled:
        """A take that follows another video while it arrives, one chunk behind it.

        Args:
            source: a file that FFmpeg reads; an iterator of pictures, pulled as they are needed; or a `LiveSource`.
            prompt: what it becomes.
            strength: in (0, 1], the noise level at which the source's look enters: 1 leaves nothing of it. A model
                with a painter keeps to the source's shapes even so. None: `Model.strength`.
            seed: any integer of 64 bits.
            fit: of a file, as in `animate`.

        Raises:
            MediaError: the file cannot be read.
            InputError: the strength is out of range; or as `take`.
        """
        strength = self.model.strength if strength is None else strength
        if not 0 < strength <= 1:
            raise InputError(f"strength lies above 0 (the source as it is) and up to 1 (none of it), got {strength}")
        if isinstance(source, Tensor | np.ndarray):
            source = [torch.as_tensor(source)]
        if isinstance(source, str | Path):
            source = stream_video(Path(source), self.size, self.fps, fit)
        if not isinstance(source, Source):
            source = IteratorSource(source, self.size)
        return Restyled(self, replace(self.begin(prompt, seed), strength=strength), source)

    def replay(self, script: Script | Path | str) -> Take:
        """The take of a script; its `stream()` ends where the script's take ended.

        Raises:
            InputError: the script cannot be read, or is for another model, other weights or another size.
        """
        script = script if isinstance(script, Script) else Script.load(script)
        return Take(self, state_of(script, self), script.chunks or None)

    def warm_up(self, *, until_full: bool = False) -> None:
        """Make chunks and forget them, for the first ones of a process take longer.

        Args:
            until_full: go on until memory has its last shape; programs are compiled for each.
        """
        stream = self.sampler.stream
        chunks = stream.window // stream.chunk + 1 if until_full else 2
        for _ in self.take("a boat on the sea").stream(chunks=chunks):
            pass

    def close(self) -> None:
        """Remove the temporary files. Takes of this studio cannot go on after that."""
        self.spool.close()

    def __enter__(self) -> "Studio":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # As `Maker`, for takes and scripts.

    def begin(self, prompt: str, seed: int, steps: int | None = None, guidance: float | None = None) -> TakeState:
        cue = Cue(prompt=self.checked_prompt(prompt), seed=seed, steps=steps, guidance=guidance)  # checks the ranges
        opening = Settings(
            prompt=cue.prompt or "", seed=seed, steps=steps, guidance=1.0 if guidance is None else guidance
        )
        return TakeState(clock=self.clock, opening=opening, join=self.full_prompt)

    def checked_prompt(self, prompt: str) -> str:
        text = checked_text("the prompt", prompt)
        tokens, most = self._num_tokens(text), self.model.preset.dit.text_len
        if tokens > most:
            raise InputError(f'the prompt has {tokens} tokens, {self.model.name} reads {most}: "{text[:60]}..."')
        return text

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

    def give_image(self, image: Path | str | Pictures, fit: Fit = "crop") -> Given:
        if not isinstance(image, Tensor):
            image = read_image(Path(image), self.size, fit)
        image = checked_pictures(image, self.size)
        return given_of(image[:1], chunks=1)

    def give_clip(self, pictures: Pictures) -> Given:
        pictures = checked_pictures(pictures, self.size)
        stream, stride = self.model.preset.stream, self.model.preset.codec.stride
        for chunks in range(stream.window // stream.chunk - 1, 0, -1):
            frames = stride.frames(chunks * stream.chunk)
            if frames <= len(pictures):
                return given_of(pictures[-frames:], chunks=chunks)
        raise InputError(
            f"the clip has {len(pictures)} frames at {self.fps:g} fps; {self.clock.opening_frames} are needed to go on"
        )

    def encode(self, pictures: Pictures, state: CodecState) -> tuple[Latent, CodecState]:
        with self._device:
            return self.sampler.encode(pictures, state)

    def make(self, node: Node, source: Latent | None = None, go_on: GoOn = always) -> Made:
        with self._device, memory_advice(self.model.name):
            memory = self._memory_after(node.parent)
            made = self._made(node, memory, source, go_on=go_on)
            self.spool.write(node, made.latent)
            self.snapshots.keep(node, made.memory)
            return made

    def num_missing(self, node: Node | None) -> int:
        with self._device:
            return self.snapshots.num_missing(node)

    def shown(self, head: Node) -> Iterator[Pictures]:
        state = CodecState()
        for node in path_to(head):
            if node.parent is None or node.plan.given or node.plan.transition == "cut":
                state = CodecState()
            with self._device:
                pictures, state = self.sampler.decode(self.spool.read(node), state)
            yield pictures[: node.num_frames]

    # Several takes together.

    def layout(self, take: Take) -> tuple[object, ...] | None:
        """Of takes that share one, the next chunks can be made together; None: this one's is made alone."""
        node = upcoming(take.state)
        memory, missing = self.snapshots.way_to(node.parent)
        if type(take) is not Take or take.was_overtaken or missing:
            return None
        return self.sampler.layout(memory, node.plan)

    def make_together(self, takes: Sequence[Take]) -> list[Chunk | None]:
        """The next chunk of each of several takes of one layout; None for one that was overtaken by a cue.

        Raises:
            MediaError, DeviceError: as `make`. All takes stand where they stood.
        """
        nodes = [take.plan_chunk() for take in takes]
        try:
            with self._device, memory_advice(self.model.name):
                memories = [self._memory_after(node.parent) for node in nodes]
                layouts = [self.sampler.layout(m, n.plan) for m, n in zip(memories, nodes, strict=True)]
                fit = [layout is not None and layout == layouts[0] for layout in layouts]  # a cue may have come since
                wanted = [
                    Wanted(memory=memory, plan=node.plan, go_on=take.still_wanted)
                    for memory, node, take, fits in zip(memories, nodes, takes, fit, strict=True)
                    if fits
                ]
                results = iter(self.sampler.make_together(wanted) if wanted else ())
                made = [next(results) if fits else None for fits in fit]
                for node, one in zip(nodes, made, strict=True):
                    if one is not None:
                        self.spool.write(node, one.latent)
                        self.snapshots.keep(node, one.memory)
        except BaseException:
            for take in takes:
                take.abandon_chunk()
            raise
        chunks: list[Chunk | None] = []
        for take, node, one in zip(takes, nodes, made, strict=True):
            if one is None:
                take.was_overtaken = True
                take.abandon_chunk()
            chunks.append(None if one is None else take.finish_chunk(node, one))
        return chunks

    def _memory_after(self, node: Node | None) -> Memory:
        found = self.snapshots.find(node)
        memory = found.memory
        for missing in found.missing:
            memory = self._made(missing, memory, None, self.spool.read(missing)).memory
        if node is not None and found.missing:
            self.snapshots.keep(node, memory)
        return memory

    def _made(
        self,
        node: Node,
        memory: Memory,
        source: Latent | None,
        known: Latent | None = None,
        go_on: GoOn = always,
    ) -> Made:
        plan = node.plan
        if plan.given is None:
            sampler = self.sampler if plan.strength is None else self.follower
            return sampler.make(memory, plan, source, known, go_on)
        if not go_on(True):
            raise OvertakenError
        given = plan.given
        pictures = given.pictures
        if given.frames == 1:  # the network knows chunks, not single frames: the picture stands still for one
            pictures = pictures.expand(self.clock.opening_frames, -1, -1, -1)
        return self.sampler.after_pictures(pictures, plan.wording, plan.idx - given.chunks + 1)

    def _is_readable(self, prompt: str) -> bool:
        return len(prompt) <= MAX_PROMPT_CHARACTERS and self._num_tokens(prompt) <= self.model.preset.dit.text_len

    def _num_tokens(self, prompt: str) -> int:
        return self.model.text_encoder.num_tokens(prompt)


def given_of(pictures: Pictures, chunks: int) -> Given:
    """Pictures as a take is given them."""
    return Given(chunks=chunks, frames=len(pictures), pictures=pictures.contiguous().cpu().clone())


def open_studio(
    name: str = "tiny-world",
    *,
    size: PictureSize | None = None,
    device: str | None = None,
    fp8: bool = False,
    compiled: bool = False,
) -> Studio:
    """Open a packaged or imported model, or a model folder, to direct takes on it. Arguments: see `longtake.open`.

    Raises:
        WeightsError: the model is unknown, incomplete or damaged.
        DeviceError: the device is not there, its memory is too small, or it lacks what `fp8` or `compiled` need.
        InputError: the size does not fit the model.
    """
    return Studio(open_model(name, device=device, size=size, fp8=fp8, compiled=compiled), size=size)

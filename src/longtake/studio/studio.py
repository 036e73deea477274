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

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from longtake.core.errors import InputError
from longtake.core.shapes import Latent, Pictures, PictureSize
from longtake.media.animations import open_writer
from longtake.media.clips import Fit, read_image, read_video
from longtake.nets.light_codec import CodecState
from longtake.sample.cues import checked_text
from longtake.sample.generate import Model, open_model
from longtake.sample.plans import Given, Transition
from longtake.sample.sampler import Made, Memory, Sampler
from longtake.studio.commands import (
    Abandon,
    Accepted,
    AddCue,
    Advance,
    Begin,
    CancelCue,
    Command,
    Cue,
    End,
    Place,
    Plan,
    Rewind,
)
from longtake.studio.session import Answer, TakeState, apply, due_at, prompt_at
from longtake.studio.snapshots import Snapshots
from longtake.studio.spool import Spool
from longtake.studio.timeline import Clock, Node, Settings, back_from, path_to

if TYPE_CHECKING:
    from longtake.studio.script import Script

MiB = 1024**2


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """Some seconds of a take, as soon as they are made."""

    index: int
    frames: Pictures  # uint8 [frames, height, width, 3]
    start_s: float
    prompt: str
    cue: Cue | None  # the last of those that this chunk is the first to show


@dataclass(frozen=True, kw_only=True, slots=True)
class Rewound:
    """Where a take stands after going back, and how many chunks its memory must be made from again."""

    head: int
    to_rebuild: int


class Receipt:
    """What became of a cue."""

    def __init__(self, take: "Take", accepted: Accepted) -> None:
        self._take = take
        self.id = accepted.cue_id
        self.accepted_at = accepted.accepted_at
        self.due_at = accepted.due_at

    @property
    def applied_at(self) -> Place | None:
        """The first chunk made under the cue; None while it waits, or when the take went back to before it."""
        for node in back_from(self._take.head):
            if any(cue_id == self.id for cue_id, _ in node.cues):
                return self._take.clock.place(node.idx, node.start_frame)
        return None

    def cancel(self) -> None:
        """Take the cue back.

        Raises:
            InputError: it has been applied or cancelled.
        """
        self._take.cancel(self.id)

    def __repr__(self) -> str:
        return f"Receipt(id={self.id}, accepted_at={self.accepted_at}, due_at={self.due_at})"


class Studio:
    """A model, ready to be directed. Close it (or use it as a context manager) to remove its temporary files."""

    def __init__(
        self,
        model: Model,
        *,
        size: PictureSize | None = None,
        snapshot_mib: int = 512,
        device_snapshot_mib: int = 4096,
    ) -> None:
        """Args:
        model: a student.
        size: of the pictures; None: what the model was trained on.
        snapshot_mib: of host memory for going back at once; beyond it, chunks are made again.
        device_snapshot_mib: of a GPU's memory, before the host's is used.
        """
        self.sampler = Sampler(model, size)
        self.snapshots = Snapshots(
            self.sampler.device, host_bytes=snapshot_mib * MiB, device_bytes=device_snapshot_mib * MiB
        )
        self.spool = Spool()
        self.given: dict[str, Pictures] = {}  # pictures that takes open with or go on from, by digest
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

    def take(self, prompt: str, *, seed: int = 0, steps: int | None = None) -> "Take":
        """A new take. Nothing is computed before it is streamed.

        Raises:
            InputError: the prompt is empty or too long, the seed or the steps are out of range.
        """
        return Take(self, self._opening(prompt, seed, steps))

    def animate(self, image: Path | str | Pictures, prompt: str, *, seed: int = 0, fit: Fit = "crop") -> "Take":
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
        return Take(self, replace(self._opening(prompt, seed, None), given=self.give_image(image, fit)))

    def extend(
        self, video: Path | str | Pictures, prompt: str, *, seed: int = 0, fit: Fit = "crop", max_seconds: float = 600
    ) -> "Take":
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
        if not isinstance(pictures, torch.Tensor):
            pictures = read_video(Path(pictures), self.size, self.fps, max_seconds, fit)
        return Take(self, replace(self._opening(prompt, seed, None), given=self.give_clip(pictures)))

    def give_image(self, image: Path | str | Pictures, fit: Fit = "crop") -> Given:
        """Keep a picture that a take can begin with or go on from."""
        if not isinstance(image, torch.Tensor):
            image = read_image(Path(image), self.size, fit)
        self._check_size(image)
        # The network knows chunks, not single frames: the picture stands still for one.
        still = image[:1].expand(self.clock.opening_frames, -1, -1, -1)
        return Given(digest=self._keep(still), chunks=1, frames=1)

    def give_clip(self, pictures: Pictures) -> Given:
        """Keep the end of a clip: as much as fits the window beside a chunk."""
        self._check_size(pictures)
        stream, stride = self.model.preset.stream, self.model.preset.codec.stride
        for chunks in range(stream.window // stream.chunk - 1, 0, -1):
            frames = stride.frames(chunks * stream.chunk)
            if frames <= len(pictures):
                return Given(digest=self._keep(pictures[-frames:]), chunks=chunks, frames=frames)
        raise InputError(
            f"the clip has {len(pictures)} frames at {self.fps:g} fps; {self.clock.opening_frames} are needed to go on"
        )

    def full_prompt(self, base: str, change: str) -> str:
        """A prompt that goes on with a change; the oldest changes are left out where the model could not read all.

        Raises:
            InputError: the change alone is too long for the model.
        """
        parts = [*base.split(", "), change]
        while True:
            prompt = ", ".join(parts)
            if len(parts) <= 2 or self._num_tokens(prompt) <= self.model.preset.dit.text_len:
                return self.checked_prompt(prompt)
            del parts[1]

    def checked_prompt(self, prompt: str) -> str:
        """A prompt that the model can read whole.

        Raises:
            InputError: it is empty or too long.
        """
        text = checked_text("the prompt", prompt)
        tokens, most = self._num_tokens(text), self.model.preset.dit.text_len
        if tokens > most:
            raise InputError(f'the prompt has {tokens} tokens, {self.model.name} reads {most}: "{text[:60]}..."')
        return text

    def make(self, node: Node) -> Made:
        """Make a chunk after its parent, whose memory is found or rebuilt.

        Raises:
            MediaError: the chunk's latents cannot be kept.
        """
        with self._device:
            memory = self._memory_after(node.parent)
            made = self._made(node, memory)
            self.spool.write(node, made.latent)
            self.snapshots.keep(node, made.memory)
            return made

    def shown(self, head: Node) -> Iterator[Pictures]:
        """The pictures of all chunks up to a head again, decoded from their latents."""
        state = CodecState()
        for node in path_to(head):
            if node.parent is None or node.plan.given or node.plan.transition == "cut":
                state = CodecState()
            with self._device:
                pictures, state = self.sampler.decode(self.spool.read(node), state)
            yield pictures[: node.num_frames]

    def replay(self, script: "Script | Path | str") -> "Take":
        """The take of a script; its `stream()` ends where the script's take ended.

        Raises:
            InputError: the script cannot be read, or is for another model, other weights or another size.
        """
        from longtake.studio.script import Script, take_from  # noqa: PLC0415  (scripts know takes, not the other way)

        return take_from(script if isinstance(script, Script) else Script.load(script), self)

    def close(self) -> None:
        """Remove the temporary files. Takes of this studio cannot go on after that."""
        self.spool.close()

    def __enter__(self) -> "Studio":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _opening(self, prompt: str, seed: int, steps: int | None) -> TakeState:
        cue = Cue(prompt=self.checked_prompt(prompt), seed=seed, steps=steps)  # checks the ranges
        return TakeState(clock=self.clock, opening=Settings(prompt=cue.prompt or "", seed=seed, steps=steps))

    def _memory_after(self, node: Node | None) -> Memory:
        found = self.snapshots.find(node)
        memory = found.memory
        for missing in found.missing:
            memory = self._made(missing, memory, known=self.spool.read(missing)).memory
        if node is not None and found.missing:
            self.snapshots.keep(node, memory)
        return memory

    def _made(self, node: Node, memory: Memory, known: Latent | None = None) -> Made:
        plan = node.plan
        if plan.given is None:
            return self.sampler.make(memory, plan, known=known)
        first = plan.idx - plan.given.chunks + 1
        return self.sampler.after_pictures(self.given[plan.given.digest], plan.wording, first)

    def _num_tokens(self, prompt: str) -> int:
        return self.model.text_encoder.num_tokens(prompt)

    def _check_size(self, pictures: Pictures) -> None:
        if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3 or not len(pictures):
            raise InputError(f"pictures are uint8 [frames, height, width, 3], got {list(pictures.shape)}")
        if tuple(pictures.shape[1:3]) != (self.size.height, self.size.width):
            height, width = pictures.shape[1:3]
            raise InputError(f"the pictures are {width}x{height}, the studio makes {self.size}; resize them first")

    def _keep(self, pictures: Pictures) -> str:
        pictures = pictures.contiguous().cpu()
        digest = hashlib.sha256(pictures.numpy().tobytes()).hexdigest()
        self.given[digest] = pictures
        return digest


class Take:
    """One continuous video being made: a way through the tree of chunks, and what is to come."""

    def __init__(self, studio: Studio, state: TakeState, chunks: int | None = None) -> None:
        """Args: chunks: after which a stream without a length ends; None: never."""
        self.studio = studio
        self._state = state
        self._chunks = chunks
        self._lock = threading.Lock()

    @property
    def state(self) -> TakeState:
        """The whole bookkeeping, an immutable value."""
        return self._state

    @property
    def head(self) -> Node | None:
        """The last chunk made."""
        return self._state.head

    @property
    def clock(self) -> Clock:
        return self._state.clock

    @property
    def duration_s(self) -> float:
        """How long the take is so far."""
        return 0.0 if self.head is None else self.head.stop_frame / self.clock.fps

    def stream(self, seconds: float | None = None, *, chunks: int | None = None) -> Iterator[Chunk]:
        """Chunks from the head on, each made when it is asked for.

        Args:
            seconds: to make, to a whole chunk; None: no end, or that of the script which is replayed.
            chunks: to make, instead of seconds.

        Raises:
            InputError: the take is being streamed already; seconds or chunks are not positive.
            MediaError: a chunk cannot be kept on disk. The take stands where it stood.
        """
        if seconds is not None and not 0 < seconds < float("inf"):
            raise InputError(f"seconds must be a positive number, got {seconds}")
        if chunks is not None and chunks < 1:
            raise InputError(f"chunks must be at least 1, got {chunks}")
        if seconds is not None and chunks is not None:
            raise InputError("say how much by seconds or by chunks, not by both")
        if seconds is None and chunks is None and self._chunks is not None:
            chunks = max(0, self._chunks - len(path_to(self.head)))
        return self._stream(seconds, chunks)

    def cue(  # noqa: PLR0913  (all that can change)
        self,
        change: str | None = None,
        *,
        prompt: str | None = None,
        at: int | None = None,
        at_s: float | None = None,
        transition: Transition = "recache",
        fade: int = 0,
        seed: int | None = None,
        steps: int | None = None,
        image: Path | str | Pictures | None = None,
        fit: Fit = "crop",
    ) -> Receipt:
        """Change the take at the next chunk, or at a later one.

        Args:
            change: what happens; the take goes on with "what it showed, change". With a cut, it is the whole prompt.
            prompt: a whole new prompt, instead of a change.
            at: chunk from which it holds.
            at_s: or the time, from the start of the take.
            transition: "recache", "flush" or "cut", see `ChunkPlan`.
            fade: chunks over which the prompt changes.
            seed: of the chunks from then on.
            steps: denoising steps of the chunks from then on.
            image: a picture that the take goes on from.
            fit: of the picture, as in `Studio.animate`.

        Raises:
            InputError: nothing would change, the time has passed, or a value cannot be.
            MediaError: the image cannot be read.
        """
        given = None if image is None else self.studio.give_image(image, fit)
        if change is not None and prompt is not None:
            raise InputError("give a change or a whole prompt, not both")
        if change is not None:
            change = checked_text("the change", change)
            if transition == "cut":
                prompt = change
        if prompt is not None:
            prompt = self.studio.checked_prompt(prompt)
        with self._lock:
            if change is not None and prompt is None:
                when = due_at(self._state, at, at_s).chunk
                prompt = self.studio.full_prompt(prompt_at(self._state, when), change)
            cue = Cue(prompt=prompt, seed=seed, steps=steps, given=given, transition=transition, fade=fade)
            self._state, accepted = apply(self._state, AddCue(cue=cue, at=at, at_s=at_s))
        assert isinstance(accepted, Accepted)
        return Receipt(self, accepted)

    def cancel(self, cue_id: int) -> None:
        """Take back a cue that has not been applied.

        Raises:
            InputError: it has been, or there is none.
        """
        self._apply(CancelCue(cue_id=cue_id))

    def rewind(self, to: int) -> Rewound:
        """Make chunk `to` the last one again; -1 is the beginning. Cues that were applied later are forgotten.

        Raises:
            InputError: there is no such chunk, or the take is being streamed.
        """
        self._apply(Rewind(to=to))
        return Rewound(head=to, to_rebuild=len(self.studio.snapshots.find(self.head).missing))

    def retake(self, at: int, prompt: str | None = None, *, seed: int | None = None, **cue: object) -> "Take":
        """Another take that shares all chunks before `at` with this one, and costs nothing until it is streamed.

        Args:
            at: the first chunk that will be made anew.
            prompt: a whole new prompt from there on; None: as it was.
            seed: of the new chunks; None: as it was.
            cue: as `cue` takes.

        Raises:
            InputError: there is no chunk before `at`; or as `cue`.
        """
        with self._lock:
            state = replace(self._state, streaming=False, planned=None, pending=())
        state, _ = apply(state, Rewind(to=at - 1))
        other = Take(self.studio, state)
        if prompt is not None or seed is not None or cue:
            other.cue(prompt=prompt, seed=seed, **cue)  # type: ignore[arg-type]
        return other

    def save(self, path: Path | str) -> Path:
        """Write all chunks made so far to a file: .mp4, .gif, .webp, or .png for a contact sheet.

        Raises:
            InputError: nothing has been made.
            MediaError: the file cannot be written.
        """
        if self.head is None:
            raise InputError("nothing has been made yet; stream the take first")
        with open_writer(Path(path), fps=self.clock.fps, size=self.studio.size) as writer:
            for pictures in self.studio.shown(self.head):
                writer.push(pictures)
        return Path(path)

    def script(self) -> "Script":
        """What makes this take again, up to its head."""
        from longtake.studio.script import script_of  # noqa: PLC0415  (scripts know takes, not the other way)

        return script_of(self)

    def _stream(self, seconds: float | None, chunks: int | None) -> Iterator[Chunk]:
        self._apply(Begin())
        start_s, made = self.duration_s, 0
        try:
            while made != chunks and (seconds is None or self.duration_s - start_s < seconds - 1e-6):
                yield self._next()
                made += 1
        finally:
            self._apply(End())

    def _next(self) -> Chunk:
        node = self._apply(Plan())
        assert isinstance(node, Node)
        try:
            made = self.studio.make(node)
        except BaseException:
            self._apply(Abandon())
            raise
        self._apply(Advance())
        return Chunk(
            index=node.idx,
            frames=made.pictures[: node.num_frames],
            start_s=node.start_frame / self.clock.fps,
            prompt=node.settings.prompt,
            cue=node.cues[-1][1] if node.cues else None,
        )

    def _apply(self, command: Command) -> Answer:
        with self._lock:
            self._state, answer = apply(self._state, command)
        return answer


def open_studio(name: str = "tiny-world", *, size: PictureSize | None = None, device: str = "cpu") -> Studio:
    """Open a packaged model or a model folder to direct takes on it.

    Raises:
        WeightsError: the model is unknown, incomplete or damaged.
        InputError: the size does not fit the model.
    """
    return Studio(open_model(name, device=device), size=size)

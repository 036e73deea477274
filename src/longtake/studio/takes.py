"""Takes, as whoever directs them holds them. Bookkeeping is `session.apply`; chunks are made by the studio."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from longtake.core.errors import InputError
from longtake.core.shapes import Pictures
from longtake.media.animations import open_writer
from longtake.media.clips import Fit
from longtake.nets.light_codec import CodecState
from longtake.sample.plans import Transition
from longtake.sample.sampler import Made, OvertakenError
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
    Settle,
    Shorten,
)
from longtake.studio.maker import Maker
from longtake.studio.script import Script, script_of
from longtake.studio.session import Answer, TakeState, apply
from longtake.studio.sources import Source, checked_pictures
from longtake.studio.timeline import Clock, Node, back_from, path_to

MAX_WAITING = 1000  # cues


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """Some seconds of a take, as soon as they are made."""

    index: int
    frames: Pictures  # uint8 [frames, height, width, 3]
    start_s: float
    prompt: str
    cue: Cue | None  # the last of those that this chunk is the first to show
    timings: dict[str, float]  # seconds by what was done


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


class Take:
    """One continuous video being made: a way through the tree of chunks, and what is to come."""

    def __init__(self, studio: Maker, state: TakeState, chunks: int | None = None) -> None:
        """Args: chunks: after which a stream without a length ends; None: never."""
        self.studio = studio
        self._state = state
        self.num_scripted = chunks
        self._lock = threading.Lock()
        self._given_up = False
        self.was_overtaken = False  # the last attempt at a chunk, by a cue: the next one must not be

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
        if seconds is None and chunks is None and self.num_scripted is not None:
            chunks = max(0, self.num_scripted - len(path_to(self.head)))
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
        guidance: float | None = None,
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
            guidance: how far towards the prompt; 1 is the student's own word, other values take twice the time.
            image: a picture that the take goes on from.
            fit: of the picture, as in `Studio.animate`.

        Raises:
            InputError: nothing would change, the time has passed, or a value cannot be.
            MediaError: the image cannot be read.
        """
        if change is not None:
            change = self.studio.checked_prompt(change)
        if change is not None and prompt is None and transition == "cut":
            prompt, change = change, None
        elif prompt is not None:
            prompt = self.studio.checked_prompt(prompt)
        if image is not None:
            self._check_repeatable()
        given = None if image is None else self.studio.give_image(image, fit)
        cue = Cue(
            prompt=prompt,
            change=change,
            seed=seed,
            steps=steps,
            guidance=guidance,
            given=given,
            transition=transition,
            fade=fade,
        )
        if len(self._state.pending) >= MAX_WAITING:
            raise InputError(f"{MAX_WAITING} cues are waiting already; cancel some first")
        accepted = self._apply(AddCue(cue=cue, at=at, at_s=at_s))
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
        self._check_repeatable()
        self._apply(Rewind(to=to))
        return Rewound(head=to, to_rebuild=self.studio.num_missing(self.head))

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
        self._check_repeatable()
        with self._lock:
            state, _ = apply(self._state, End())
        state, _ = apply(replace(state, pending=()), Rewind(to=at - 1))
        other = Take(self.studio, state)
        if prompt is not None or seed is not None or cue:
            other.cue(prompt=prompt, seed=seed, **cue)  # type: ignore[arg-type]
        return other

    def make_next(self) -> Chunk | None:
        """One chunk after the head; None when nothing more will come. `stream` calls it, and whoever makes many takes.

        A cue that comes while the chunk is made overtakes it once: it is begun again, so that the cue shows at once.

        Raises:
            OvertakenError: the take was given up meanwhile.
            MediaError, DeviceError: as `stream`. The take stands where it stood.
        """
        try:
            return self._attempt(settled=False)
        except OvertakenError:
            if self._given_up:
                raise
            return self._attempt(settled=True)

    def give_up(self) -> None:
        """Make nothing more of this take, and not even the chunk that is being made, if that can still be helped."""
        self._given_up = True

    @property
    def ready(self) -> bool:
        """Could a chunk be made without waiting for anything?"""
        return True

    def save(self, path: Path | str, *, scale: int = 1) -> Path:
        """Write all chunks made so far to a file: .mp4, .gif, .webp, or .png for a contact sheet.

        Args:
            path: of the file.
            scale: how many times larger than they were made the pictures are written: 1, 2, 3 or 4.

        Raises:
            InputError: nothing has been made, or another scale.
            MediaError: the file cannot be written.
        """
        if self.head is None:
            raise InputError("nothing has been made yet; stream the take first")
        with open_writer(Path(path), fps=self.clock.fps, size=self.studio.size, scale=scale) as writer:
            for pictures in self.studio.shown(self.head):
                writer.push(pictures)
        return Path(path)

    def script(self) -> Script:
        """What makes this take again, up to its head."""
        self._check_repeatable()
        return script_of(self._state, self.studio)

    def _check_repeatable(self) -> None:
        """Raise InputError where what was made cannot be made again."""

    def _stream(self, seconds: float | None, chunks: int | None) -> Iterator[Chunk]:
        self._apply(Begin())
        start_s, made = self.duration_s, 0
        try:
            while made != chunks and (seconds is None or self.duration_s - start_s < seconds - 1e-6):
                chunk = self.make_next()
                if chunk is None:
                    return
                yield chunk
                made += 1
        finally:
            self._apply(End())

    def _attempt(self, *, settled: bool) -> Chunk | None:
        """Plan a chunk and make it; whatever goes wrong, its cues wait again and the take stands where it stood."""
        node = self.plan_chunk(settled=settled)
        try:
            done = self._make(node)
        except BaseException:
            self.abandon_chunk()
            raise
        if done is None:
            self.abandon_chunk()
            return None
        return self.finish_chunk(*done)

    # A chunk in three steps, for whoever makes those of several takes together.

    def plan_chunk(self, *, settled: bool = False) -> Node:
        """Begin the next chunk. `settled`: cues that come from now on are for the one after it."""
        node = self._apply(Plan(settled=settled))
        assert isinstance(node, Node)
        return node

    def abandon_chunk(self) -> None:
        """Give the planned chunk up; its cues wait again."""
        self._apply(Abandon())

    def finish_chunk(self, node: Node, made: Made) -> Chunk:
        """The planned chunk has been made."""
        self.was_overtaken = False
        self._apply(Advance())
        return Chunk(
            index=node.idx,
            frames=made.pictures[: node.num_frames],
            start_s=node.start_frame / self.clock.fps,
            prompt=node.settings.prompt,
            cue=node.cues[-1][1] if node.cues else None,
            timings=made.timings,
        )

    def _make(self, node: Node) -> tuple[Node, Made] | None:
        return node, self.studio.make(node, go_on=self.still_wanted)

    def still_wanted(self, done: bool) -> bool:
        """Has no cue overtaken the chunk that is being made? Once its denoising is done, none can any more."""
        if self._given_up:
            return False
        if not done:
            return not self._state.overtaken
        self._apply(Settle())
        return self._state.settled

    def _apply(self, command: Command) -> Answer:
        with self._lock:
            self._state, answer = apply(self._state, command)
        return answer


class Restyled(Take):
    """A take that follows a source video, one chunk behind it. It cannot go back: its source has moved on."""

    def __init__(self, studio: Maker, state: TakeState, source: Source) -> None:
        super().__init__(studio, state)
        self._source = source
        self._encoder = CodecState()

    def _check_repeatable(self) -> None:
        raise InputError("a restyled take follows its source: no going back, no script, no images of its own")

    @property
    def ready(self) -> bool:
        """Has the source given enough?"""
        return self._source.ready(self.clock.opening_frames if self.head is None else self.clock.chunk_frames)

    def make_next(self) -> Chunk | None:
        """See `Take.make_next`; here no cue overtakes a chunk."""
        return self._attempt(settled=True)  # what was taken from the source cannot be taken again

    def _make(self, node: Node) -> tuple[Node, Made] | None:
        pictures = self._source.take(node.num_frames)
        if pictures is None:
            return None
        pictures = checked_pictures(pictures, self.studio.size)
        opens = node.parent is None or node.plan.transition == "cut"
        wanted = node.num_frames
        if len(pictures) < wanted:
            shortened = self._apply(Shorten(frames=len(pictures)))
            assert isinstance(shortened, Node)
            node = shortened
        still = pictures[-1:].expand(wanted - len(pictures), -1, -1, -1)  # after the end the last picture stands still
        state = CodecState() if opens else self._encoder
        latent, encoder = self.studio.encode(torch.cat((pictures, still)), state)
        made = self.studio.make(node, latent)
        self._encoder = encoder
        return node, made

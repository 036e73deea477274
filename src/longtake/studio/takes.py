"""Takes: streaming, cues, rewinds, branches and saving of one continuous video."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from longtake.core.cue import Cue, Transition, input_errors
from longtake.core.errors import InputError
from longtake.core.shapes import Latent, Pictures, PictureSize
from longtake.media.animations import open_writer
from longtake.media.clips import Fit
from longtake.sample.model import Model
from longtake.studio.commands import Accepted, AddCue, Begin, CancelCue, End, Position, Rewind
from longtake.studio.controller import Chunk, NoChunk, TakeController
from longtake.studio.script import Script, full_script_of, script_of
from longtake.studio.session import TakeState, apply
from longtake.studio.timeline import Clock, Node, back_from, path_to

MAX_WAITING = 1000  # largest number of pending cues


@dataclass(frozen=True, kw_only=True, slots=True)
class Rewound:
    """Head of a take after a rewind, and the number of chunks whose memory must be recomputed."""

    head: int
    to_rebuild: int


class Receipt:
    """Receipt of a cue, which reports its state."""

    def __init__(self, take: "Take", accepted: Accepted) -> None:
        self._take = take
        self.id = accepted.cue_id
        self.accepted_at = accepted.accepted_at
        self.due_at = accepted.due_at

    @property
    def applied_at(self) -> Position | None:
        """First chunk made under the cue; None while it is pending, or after a rewind to before it."""
        for node in back_from(self._take.head):
            if any(cue_id == self.id for cue_id, _ in node.cues):
                return self._take.clock.place(node.idx, node.start_frame)
        return None

    def cancel(self) -> None:
        """Cancel the cue.

        Raises:
            InputError: it has been applied or cancelled.
        """
        self._take.cancel(self.id)

    def __repr__(self) -> str:
        return f"Receipt(id={self.id}, accepted_at={self.accepted_at}, due_at={self.due_at})"


class Take:
    """Continuous video being made: a path through the tree of chunks, and the pending cues."""

    def __init__(self, controller: TakeController, chunks: int | None = None) -> None:
        """Create a take.

        Args:
            controller: maker of the take's chunks, which servers use directly to make chunks of several takes at once.
            chunks: length at which a stream without a given length ends; None: never.
        """
        self.controller = controller
        self.num_scripted = chunks

    @property
    def model(self) -> Model:
        return self.controller.engine.model

    @property
    def size(self) -> PictureSize:
        """Picture size."""
        return self.controller.engine.size

    @property
    def state(self) -> TakeState:
        """State of the take, an immutable value."""
        return self.controller.state

    @property
    def head(self) -> Node | None:
        """Last finished chunk; None at the start."""
        return self.state.head

    @property
    def clock(self) -> Clock:
        return self.state.clock

    @property
    def duration_s(self) -> float:
        """Duration of the take so far, in seconds."""
        return 0.0 if self.head is None else self.head.stop_frame / self.clock.fps

    def stream(self, seconds: float | None = None, *, chunks: int | None = None) -> Iterator[Chunk]:
        """Yield chunks after the head, each made on demand.

        Args:
            seconds: duration to make, rounded up to a whole chunk; None: no end, or the end of a replayed script.
            chunks: number of chunks to make, instead of `seconds`.

        Raises:
            InputError: the take is being streamed already, or `seconds` or `chunks` is invalid.
            MediaError: a chunk cannot be written to disk; the take's head is unchanged.
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
        negative_prompt: str | None = None,
        loras: Mapping[str, float] | None = None,
        image: Path | str | Pictures | None = None,
        fit: Fit = "crop",
    ) -> Receipt:
        """Change the take at the next chunk, or at a later one.

        Args:
            change: text that is appended to the prompt; with a cut, it is the whole prompt.
            prompt: a whole new prompt, instead of a change.
            at: first chunk under the cue.
            at_s: time in seconds from the start of the take, instead of `at`.
            transition: "recache", "flush" or "cut", see `ChunkPlan`.
            fade: number of chunks over which the prompt and the scales of LoRAs change; another cue that changes either
                of them ends it.
            seed: seed of the chunks from then on.
            steps: denoising steps of the chunks from then on.
            guidance: guidance scale; 1 is off, other values take twice the time.
            negative_prompt: prompt that guidance leads away from.
            loras: scales of LoRAs that the model was opened with, by name; 0 switches one off.
            image: a picture from which the take continues.
            fit: fit of the picture, as in `Studio.animate`.

        Raises:
            InputError: nothing would change, the time has passed, or a value is invalid.
            MediaError: the image cannot be read.
        """
        if change is not None:
            change = self.controller.engine.checked_prompt(change)
        if change is not None and prompt is None and transition == "cut":
            prompt, change = change, None
        elif prompt is not None:
            prompt = self.controller.engine.checked_prompt(prompt)
        if image is not None:
            self._check_repeatable()
        given = None if image is None else self.controller.engine.init_image(image, fit)
        with input_errors():
            cue = Cue(
                prompt=prompt,
                change=change,
                transition=transition,
                fade=fade,
                seed=seed,
                steps=steps,
                guidance=guidance,
                negative_prompt=negative_prompt,
                loras=None if loras is None else dict(loras),
                given=given,
            )
        if len(self.state.pending) >= MAX_WAITING:
            raise InputError(f"{MAX_WAITING} cues are waiting already; cancel some first")
        accepted = self.controller.apply(AddCue(cue=cue, at=at, at_s=at_s))
        assert isinstance(accepted, Accepted)
        return Receipt(self, accepted)

    def cancel(self, cue_id: int) -> None:
        """Cancel a cue that has not been applied.

        Raises:
            InputError: it has been applied, or there is none.
        """
        self.controller.apply(CancelCue(cue_id=cue_id))

    def rewind(self, to: int) -> Rewound:
        """Make chunk `to` the head again; -1 is the beginning. Cues that were applied later are discarded.

        Raises:
            InputError: there is no such chunk, or the take is being streamed.
        """
        self._check_repeatable()
        self.controller.apply(Rewind(to=to))
        return Rewound(head=to, to_rebuild=self.controller.engine.num_missing(self.head))

    def retake(self, at: int, prompt: str | None = None, *, seed: int | None = None, **cue: object) -> "Take":
        """Create a branch that shares all chunks before `at` with this take; nothing is computed before it is streamed.

        Args:
            at: first chunk that differs.
            prompt: a whole new prompt from there on; None: no change.
            seed: seed of the new chunks; None: no change.
            cue: further arguments of `cue`.

        Raises:
            InputError: there is no chunk before `at`; or as `cue`.
        """
        self._check_repeatable()
        state, _ = apply(self.state, End())
        state, _ = apply(replace(state, pending=()), Rewind(to=at - 1))
        other = Take(TakeController(self.controller.engine, state))
        if prompt is not None or seed is not None or cue:
            other.cue(prompt=prompt, seed=seed, **cue)  # type: ignore[arg-type]
        return other

    def save(self, path: Path | str, *, scale: int = 1) -> Path:
        """Write all chunks made so far to a file: .mp4, .gif, .webp, or .png for a contact sheet.

        Args:
            path: path of the file.
            scale: enlargement of the written pictures: 1, 2, 3 or 4.

        Raises:
            InputError: nothing has been made, or the scale is not supported.
            MediaError: the file cannot be written.
        """
        if self.head is None:
            raise InputError("nothing has been made yet; stream the take first")
        with open_writer(Path(path), fps=self.clock.fps, size=self.size, scale=scale) as writer:
            for frames in self.frames():
                writer.push(frames)
        return Path(path)

    def frames(self) -> Iterator[Pictures]:
        """Yield the frames of all chunks made so far, chunk by chunk, decoded again from their latents."""
        if self.head is not None:
            yield from self.controller.engine.decoded(self.head)

    def script(self) -> Script:
        """Script that reproduces this take up to its head."""
        self._check_repeatable()
        return script_of(self.state, self.controller.engine)

    def full_script(self) -> Script:
        """Script of this take with the cues that wait, from which `Studio.resume` goes on."""
        self._check_repeatable()
        return full_script_of(self.state, self.controller.engine)

    def latents(self) -> Latent:
        """Latents of the head chunk, fp32 on the CPU.

        Raises:
            MediaError: they are no longer on disk.
        """
        assert self.head is not None
        return self.controller.engine.spool.read(self.head)

    def _check_repeatable(self) -> None:
        """Raise InputError if the take follows a source, so that it cannot be reproduced."""
        if self.controller.source is not None:
            raise InputError("a restyled take follows its source: no going back, no script, no images of its own")

    def _stream(self, seconds: float | None, chunks: int | None) -> Iterator[Chunk]:
        self.controller.apply(Begin())
        start_s, made = self.duration_s, 0
        try:
            while made != chunks and (seconds is None or self.duration_s - start_s < seconds - 1e-6):
                chunk = self.controller.next_chunk()
                if isinstance(chunk, NoChunk):
                    return
                yield chunk
                made += 1
        finally:
            self.controller.apply(End())

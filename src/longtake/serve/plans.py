"""What has to be known to make a video again, bit for bit: its opening, the later changes, its length."""

import math
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from longtake.core.errors import InputError
from longtake.serve.errors import ConflictError
from longtake.serve.messages import Open
from longtake.serve.store import VideoRow
from longtake.studio.timeline import Clock


class Change(BaseModel):
    """A change of prompt and seed at a chunk."""

    at: int  # number of chunks before the change
    prompt: str
    seed: int


class JobPlan(BaseModel):
    """All that is needed to generate a video; stored with its row."""

    opening: Open
    later: tuple[Change, ...] = ()
    num_chunks: int | None  # None: until the source ends
    expected_chunks: int  # `num_chunks`, or an estimate of it
    first_idx: int = 0  # index of the first chunk; after a clip it is known once the video is finished
    metadata: dict[str, str] = {}  # the client's own notes on the video


def plan_of(row: VideoRow) -> JobPlan:
    """The plan of a video.

    Raises:
        ConflictError: another version of longtake wrote it, in a form that this version does not know.
    """
    try:
        return JobPlan.model_validate(row.request)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConflictError(
            f"{row.id} was asked of another version of longtake ({where}: {first['msg']}); ask for it again"
        ) from error


def continued(plan: JobPlan, at: int, prompt: str, seed: int, num_chunks: int | None) -> JobPlan:
    """Plan of a video that equals another one before chunk `at` and has a new prompt and seed from there on."""
    if at == 0:
        opening = plan.opening.model_copy(update={"prompt": prompt, "seed": seed})
        return plan.model_copy(update={"opening": opening, "later": ()})
    before = tuple(change for change in plan.later if change.at < at)
    later = (*before, Change(at=at, prompt=prompt, seed=seed))
    return plan.model_copy(update={"later": later, "num_chunks": num_chunks, "expected_chunks": num_chunks})


@dataclass(frozen=True, kw_only=True)
class NewVideo:
    """A video to start."""

    plan: JobPlan
    seconds: float  # length that the API shows until the video is complete
    of: VideoRow | None = None  # video that it is a version of
    shared: int = 0  # number of that video's first chunks that are its own too


@dataclass(frozen=True)
class Planner:
    """Plans the videos that are asked for: the number of chunks, and what two versions share."""

    clock: Clock
    max_seconds: float  # maximum length of a video

    def create(self, opening: Open, seconds: float) -> NewVideo:
        """Plan a video of at least `seconds`; after a clip, that is the length of the new part.

        Raises:
            InputError: the length is not allowed.
        """
        self._check_seconds(seconds)
        first = 1 if opening.image is not None else self.clock.opening_frames
        num_chunks = 1 + self._more_chunks(seconds if opening.clip else seconds - first / self.clock.fps)
        plan = JobPlan(opening=opening, num_chunks=num_chunks, expected_chunks=num_chunks)
        return NewVideo(plan=plan, seconds=seconds)

    def edit(self, opening: Open, seconds: float) -> NewVideo:
        """Plan a video that restyles another one of `seconds` to its end. Raises as `create`."""
        self._check_seconds(seconds)
        expected = 1 + self._more_chunks(seconds - self.clock.opening_frames / self.clock.fps)
        return NewVideo(plan=JobPlan(opening=opening, num_chunks=None, expected_chunks=expected), seconds=seconds)

    def remix(self, row: VideoRow, prompt: str, *, from_chunk: int = 0, seed: int | None = None) -> NewVideo:
        """Plan a video that shares the first `from_chunk` chunks of another one and has a new prompt from there on.

        Raises:
            InputError: the other video has fewer chunks, or cannot be shared in part.
            ConflictError: the other video has failed, or must be completed first.
        """
        plan = plan_of(row)
        if row.status == "failed":
            raise ConflictError(f"{row.id} has failed; ask for it again first")
        if not 0 <= from_chunk < plan.expected_chunks:
            raise InputError(f"from_chunk lies from 0 to {plan.expected_chunks - 1}, got {from_chunk}")
        if from_chunk and plan.opening.source is not None:
            raise InputError("a video that follows another one can only be made anew as a whole: leave out from_chunk")
        if from_chunk and plan.opening.clip is not None and row.status != "completed":
            raise ConflictError(f"{row.id} is {row.status}; wait until it is completed, or leave out from_chunk")
        changed = continued(plan, from_chunk, prompt, row.seed if seed is None else seed, plan.num_chunks)
        return NewVideo(plan=changed, seconds=float(row.seconds), of=row, shared=from_chunk)

    def extend(self, row: VideoRow, prompt: str, seconds: float) -> NewVideo:
        """Plan a version of another video that is longer by `seconds`. Raises as `remix`."""
        plan = plan_of(row)
        if row.status != "completed":
            raise ConflictError(f"{row.id} is {row.status}; wait until it is completed")
        total = float(row.seconds) + seconds
        self._check_seconds(seconds)
        self._check_seconds(total)
        if plan.num_chunks is None:
            raise InputError("a video that follows another one ends with it; upload its mp4 to go on from there")
        longer = plan.num_chunks + self._more_chunks(seconds)
        changed = continued(plan, plan.num_chunks, prompt, row.seed, longer)
        return NewVideo(plan=changed, seconds=total, of=row, shared=plan.num_chunks)

    def _check_seconds(self, seconds: float) -> None:
        if not 0 < seconds <= self.max_seconds:
            raise InputError(f"seconds must lie above 0 and at most {self.max_seconds:g} in all, got {seconds:g}")

    def _more_chunks(self, seconds: float) -> int:
        return max(0, math.ceil(seconds * self.clock.fps / self.clock.chunk_frames - 1e-6))

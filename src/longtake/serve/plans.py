"""What has to be known to make a video again, bit for bit: its opening, the later changes, its length."""

from pydantic import BaseModel, ValidationError

from longtake.serve.errors import ConflictError
from longtake.serve.messages import Open
from longtake.serve.store import VideoRow


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

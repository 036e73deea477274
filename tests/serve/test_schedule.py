"""Whose turn it is: live sessions in turn, jobs in the gaps, and never none of them for long."""

from dataclasses import dataclass

from longtake.serve.schedule import LIVE_CHUNKS_PER_JOB_CHUNK, Scheduler


@dataclass
class Session:
    name: str
    live: bool
    created_at: float = 0.0
    last_made_s: float = 0.0


def made(scheduler: Scheduler, ready: list[Session], chunks: int) -> str:
    """The names of the sessions whose chunks are made, one after the other."""
    names = ""
    for now in range(1, chunks + 1):
        first = scheduler.order(ready)[0]
        first.last_made_s = now
        names += first.name
    return names


def test_live_sessions_take_turns() -> None:
    assert (
        made(Scheduler(), [Session("a", live=True), Session("b", live=True), Session("c", live=True)], 7) == "abcabca"
    )


def test_jobs_are_made_one_after_the_other_where_nobody_watches() -> None:
    jobs = [Session("y", live=False, created_at=2), Session("x", live=False, created_at=1)]
    assert made(Scheduler(), jobs, 3) == "xxx"


def test_a_job_gets_a_chunk_after_every_few_of_live_sessions() -> None:
    assert LIVE_CHUNKS_PER_JOB_CHUNK == 4
    ready = [Session("a", live=True), Session("b", live=True), Session("j", live=False)]
    assert made(Scheduler(), ready, 15) == "ababjababjababj"


def test_live_sessions_have_the_device_at_once_after_a_job() -> None:
    scheduler, job = Scheduler(), Session("j", live=False)
    assert made(scheduler, [job], 9) == "j" * 9
    assert made(scheduler, [job, Session("a", live=True)], 6) == "aaaaja"


def test_only_those_of_one_kind_share_a_step_and_nobody_is_invented() -> None:
    ready = [Session("a", live=True), Session("j", live=False), Session("b", live=True)]
    assert [s.name for s in Scheduler().order(ready)] == ["a", "b"]
    assert Scheduler().order([]) == []

"""Who is admitted, who holds a slot, and whose chunk is made next: fair to all, whatever they do."""

from collections.abc import Hashable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.serve.errors import BusyError
from longtake.serve.schedule import (
    LIVE_CHUNKS_PER_JOB_CHUNK,
    SHORT_GRACE_S,
    SLOT_GRACE_S,
    TYPICAL_TURN_S,
    DeviceLimits,
    QueuePlace,
    Scheduler,
)


@dataclass
class Session:
    id: str
    live: bool = True
    created_at: float = 0.0
    last_made_s: float = 0.0
    over: bool = False
    wants_slot: bool = True
    silent: bool = False
    ready: bool = True
    layout: Hashable | None = field(default=None)


def jobs(*ids: str) -> list[Session]:
    return [Session(i, live=False, created_at=k) for k, i in enumerate(ids)]


def made(scheduler: Scheduler, sessions: list[Session], chunks: int) -> str:
    """The ids of the sessions whose chunks are made, one after the other."""
    ids = ""
    for now in range(1, chunks + 1):
        first = scheduler.turn(sessions)[0]
        first.last_made_s = now
        ids += first.id
    return ids


def positions(changed: dict[str, QueuePlace | None]) -> dict[str, int | None]:
    return {i: None if place is None else place.position for i, place in changed.items()}


# Turns.


def test_live_sessions_take_turns() -> None:
    assert made(Scheduler(DeviceLimits()), [Session("a"), Session("b"), Session("c")], 7) == "abcabca"


def test_jobs_are_made_one_after_the_other_where_nobody_watches() -> None:
    assert made(Scheduler(DeviceLimits()), jobs("x", "y")[::-1], 3) == "xxx"


def test_a_job_gets_a_chunk_after_every_few_of_live_sessions() -> None:
    assert LIVE_CHUNKS_PER_JOB_CHUNK == 4
    assert made(Scheduler(DeviceLimits()), [Session("a"), Session("b"), *jobs("j")], 15) == "ababjababjababj"


def test_live_sessions_have_the_device_at_once_after_a_job() -> None:
    scheduler, (job,) = Scheduler(DeviceLimits()), jobs("j")
    assert made(scheduler, [job], 9) == "j" * 9
    assert made(scheduler, [job, Session("a")], 6) == "aaaaja"


def test_only_ready_ones_of_one_kind_and_layout_share_a_step() -> None:
    sessions = [
        Session("a", layout=1),
        Session("b", layout=2),
        Session("c", layout=1, ready=False),
        *(Session(i, layout=1) for i in "def"),
        replace(jobs("j")[0], layout=1),
    ]
    assert [s.id for s in Scheduler(DeviceLimits(batch=3)).turn(sessions)] == ["a", "d", "e"]
    assert [s.id for s in Scheduler(DeviceLimits(batch=1)).turn(sessions)] == ["a"]
    assert [s.id for s in Scheduler(DeviceLimits()).turn([Session("a"), Session("b")])] == ["a"], "None is no layout"
    assert Scheduler(DeviceLimits()).turn([]) == []


# Slots and the queue.


def test_the_oldest_get_the_slots_and_the_others_their_positions_and_times() -> None:
    scheduler, sessions = Scheduler(DeviceLimits(takes=2)), [Session(i) for i in "abcd"]
    waits = {"c": QueuePlace(1, TYPICAL_TURN_S / 2), "d": QueuePlace(2, TYPICAL_TURN_S)}
    assert scheduler.assign(sessions, 0.0) == {"a": QueuePlace(), "b": QueuePlace(), **waits}
    assert scheduler.assign(sessions, 1.0) == {}, "only what has changed is told"
    sessions[1].over = True
    assert positions(scheduler.assign(sessions, 2.0)) == {"b": None, "c": 0, "d": 1}


def test_the_time_to_wait_follows_how_long_slots_are_held() -> None:
    scheduler, (a, b) = Scheduler(DeviceLimits(takes=1)), (Session("a"), Session("b"))
    scheduler.assign([a, b], 0.0)
    a.over = True
    scheduler.assign([a, b], 10.0)  # it was held for 10 s
    place = scheduler.assign([b, Session("c")], 11.0)["c"]
    assert place is not None
    assert place.wait_s == pytest.approx(TYPICAL_TURN_S + 0.2 * (10.0 - TYPICAL_TURN_S))


def test_a_slot_outlives_a_reload_of_the_page_but_not_long_while_others_wait() -> None:
    for others, grace_s in (([], SLOT_GRACE_S), ([Session("b")], SHORT_GRACE_S)):
        scheduler, a = Scheduler(DeviceLimits(takes=1)), Session("a")
        scheduler.assign([a, *others], 0.0)
        a.wants_slot = False
        assert "a" not in scheduler.assign([a, *others], grace_s)
        assert scheduler.assign([a, *others], grace_s + 0.1)["a"] is None


def test_silent_viewers_keep_their_slot_until_somebody_waits() -> None:
    scheduler, a = Scheduler(DeviceLimits(takes=1)), Session("a")
    scheduler.assign([a], 0.0)
    a.silent = True
    assert scheduler.assign([a], 60.0) == {}
    assert positions(scheduler.assign([a, Session("b")], 61.0)) == {"a": None, "b": 0}


def test_jobs_need_no_slot_and_count_as_load() -> None:
    scheduler, sessions = Scheduler(DeviceLimits(takes=1)), [*jobs("x", "y"), Session("a"), Session("b")]
    assert set(scheduler.assign(sessions, 0.0)) == {"a", "b"}
    assert scheduler.load(sessions, 0.0) == 4
    sessions[0].over = True
    assert scheduler.load(sessions, 0.0) == 3


# Admission.


def test_so_many_run_so_many_wait_and_one_more_is_refused() -> None:
    scheduler, sessions = Scheduler(DeviceLimits(takes=1, waiting=2)), list[Session]()
    for i in "abc":
        scheduler.check_room(sessions, 0.0)
        sessions.append(Session(i))
        scheduler.assign(sessions, 0.0)
    with pytest.raises(BusyError, match="1 takes are running and 2 are waiting"):
        scheduler.check_room(sessions, 0.0)
    sessions[1].over = True
    scheduler.check_room(sessions, 0.0)


def test_a_new_session_holds_its_place_until_its_viewer_has_had_time_to_come() -> None:
    scheduler, new = Scheduler(DeviceLimits(takes=1, waiting=0)), Session("a", wants_slot=False)
    scheduler.arrived(new, 100.0)
    assert scheduler.room([new], 100.0 + SLOT_GRACE_S - 0.1) == 0
    assert scheduler.room([new], 100.0 + SLOT_GRACE_S) == 1
    scheduler.arrived(new, 200.0)
    new.over = True
    assert scheduler.room([new], 200.0) == 1


# Whatever happens.

ACTS = st.tuples(
    st.integers(0, 7), st.sampled_from(("come", "leave", "silent", "speak", "end", "pass")), st.floats(0, 30)
)


@settings(max_examples=200, deadline=None)
@given(st.lists(ACTS, max_size=40), st.integers(1, 3), st.integers(0, 4))
def test_no_slot_is_shared_wasted_or_taken_out_of_turn(
    acts: list[tuple[int, str, float]], takes: int, waiting: int
) -> None:
    """Told places are those of the sessions: at most `takes` slots, positions 1 to n, oldest first, none idle."""
    scheduler, now = Scheduler(DeviceLimits(takes=takes, waiting=waiting)), 0.0
    sessions = [Session(str(i), created_at=i, wants_slot=False) for i in range(8)]
    told: dict[str, QueuePlace] = {}
    for number, act, after_s in acts:
        now += after_s
        session = sessions[number]
        session.wants_slot = {"come": True, "leave": False}.get(act, session.wants_slot)
        session.silent = {"silent": True, "speak": False}.get(act, session.silent)
        session.over |= act == "end"
        for i, place in scheduler.assign(sessions, now).items():
            if place is None:
                del told[i]
            else:
                told[i] = place
        running = [i for i, place in told.items() if place.position == 0]
        queued = sorted((place.position, int(i)) for i, place in told.items() if place.position > 0)
        assert len(running) <= takes
        assert scheduler.num_running(sessions) == len(running)
        assert [position for position, _ in queued] == list(range(1, len(queued) + 1))
        assert [i for _, i in queued] == sorted(i for _, i in queued), "the oldest is the next"
        assert not queued or len(running) == takes, "none waits beside a free slot"
        for i in told:
            assert not sessions[int(i)].over
        assert all(told[i].wait_s > 0 for i in told if told[i].position > 0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=6), st.integers(1, 4))
def test_nobody_who_is_ready_starves(live: list[bool], batch: int) -> None:
    """Every session is made within as many steps as there are sessions, for jobs as many as their turns take."""
    sessions = [Session(str(i), live=each, created_at=i) for i, each in enumerate(live)]
    scheduler, num_live = Scheduler(DeviceLimits(batch=batch)), sum(live)
    since = dict.fromkeys((s.id for s in sessions if s.live), 0)
    since_job = 0
    for now in range(1, 60):
        turn = scheduler.turn(sessions)
        assert 1 <= len(turn) <= batch
        for session in turn:
            session.last_made_s = now
        since = {i: 0 if any(s.id == i for s in turn) else steps + 1 for i, steps in since.items()}
        since_job = 0 if not turn[0].live else since_job + 1
        assert all(steps <= num_live + num_live // LIVE_CHUNKS_PER_JOB_CHUNK + 1 for steps in since.values())
        assert num_live == len(live) or since_job <= LIVE_CHUNKS_PER_JOB_CHUNK

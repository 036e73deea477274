"""The take as a pure state machine, against a model made of plain lists."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from longtake.core.cue import Cue, input_errors
from longtake.core.errors import InputError
from longtake.sample.plans import InitFrames
from longtake.studio.commands import (
    Abandon,
    Accepted,
    AddCue,
    Advance,
    Begin,
    CancelCue,
    Command,
    End,
    PlanChunk,
    Rewind,
    Settle,
)
from longtake.studio.session import TakeState, apply
from longtake.studio.timeline import Clock, InForce, path_to

CLOCK = Clock(fps=16.0, opening_frames=9, chunk_frames=12)


def new_take() -> TakeState:
    return TakeState(clock=CLOCK, opening=InForce(prompt="a"))


def after(state: TakeState, *commands: Command) -> TakeState:
    for command in commands:
        state, _ = apply(state, command)
    return state


def made(state: TakeState, num: int) -> TakeState:
    return after(state, *[command for _ in range(num) for command in (PlanChunk(), Settle(), Advance())])


class Takes(RuleBasedStateMachine):
    """Any commands in any order: prompts by chunk as a list, waiting cues as a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.state = new_take()
        self.prompts: list[str] = []  # of the chunks made
        self.frames: list[int] = []
        self.waiting: dict[int, tuple[int, str, str]] = {}  # number -> chunk, prompt, transition
        self.planned: tuple[str, int] | None = None
        self.undone: dict[int, tuple[int, str, str]] = {}

    def settled(self) -> int:
        return len(self.prompts) + (self.planned is not None and self.state.settled)

    @rule(ahead=st.integers(0, 5), prompt=st.sampled_from("bcdef"), how=st.sampled_from(["recache", "flush", "cut"]))
    def cue(self, ahead: int, prompt: str, how: str) -> None:
        at = self.settled() + ahead
        self.state, answer = apply(self.state, AddCue(cue=Cue(prompt=prompt, transition=how), at=at))  # type: ignore[arg-type]
        assert isinstance(answer, Accepted)
        assert answer.due_at.chunk == at
        self.waiting[answer.cue_id] = (at, prompt, how)

    @rule(back=st.integers(1, 3))
    def a_cue_for_the_past_is_refused(self, back: int) -> None:
        before = self.state
        if self.settled() >= back:
            with pytest.raises(InputError, match="has passed"):
                apply(self.state, AddCue(cue=Cue(prompt="x"), at=self.settled() - back))
        assert self.state is before

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.waiting)))
        self.state = after(self.state, CancelCue(cue_id=number))
        del self.waiting[number]

    @precondition(lambda self: self.planned is None)
    @rule()
    def plan(self) -> None:
        idx = len(self.prompts)
        due = {n: c for n, c in self.waiting.items() if c[0] <= idx}
        last = due[max(due, key=lambda n: (due[n][0], n))] if due else None
        before = self.prompts[-1] if self.prompts else "a"
        opens = idx == 0 or any(how == "cut" for _, _, how in due.values())
        self.planned = (last[1] if last else before, 9 if opens else 12)
        self.undone = due
        self.waiting = {n: c for n, c in self.waiting.items() if n not in due}
        self.state = after(self.state, PlanChunk())

    @precondition(lambda self: self.planned is not None)
    @rule()
    def settle(self) -> None:
        overtaken = any(at <= len(self.prompts) for at, _, _ in self.waiting.values())
        assert self.state.overtaken == overtaken
        self.state = after(self.state, Settle())
        assert self.state.settled != overtaken

    @precondition(lambda self: self.planned is not None and self.state.settled)
    @rule()
    def advance(self) -> None:
        assert self.planned is not None
        self.prompts.append(self.planned[0])
        self.frames.append(self.planned[1])
        self.planned = None
        self.state = after(self.state, Advance())

    @precondition(lambda self: self.planned is not None)
    @rule()
    def abandon(self) -> None:
        idx = len(self.prompts)
        self.waiting |= {n: (idx, prompt, how) for n, (_, prompt, how) in self.undone.items()}
        self.planned = None
        self.state = after(self.state, Abandon())

    @precondition(lambda self: self.planned is None)
    @rule(data=st.data())
    def rewind(self, data: st.DataObject) -> None:
        to = data.draw(st.integers(-1, len(self.prompts) - 1))
        self.prompts, self.frames = self.prompts[: to + 1], self.frames[: to + 1]
        self.state = after(self.state, Rewind(to=to))

    @invariant()
    def agrees(self) -> None:
        path = path_to(self.state.head)
        assert [node.idx for node in path] == list(range(len(self.prompts)))
        assert [node.in_force.prompt for node in path] == self.prompts
        assert [node.plan.wording for node in path] == [((prompt, 1.0),) for prompt in self.prompts]
        assert [node.num_frames for node in path] == self.frames
        assert [node.start_frame for node in path] == [sum(self.frames[:i]) for i in range(len(self.frames))]
        assert {p.cue_id: (p.at, p.cue.prompt, p.cue.transition) for p in self.state.pending} == self.waiting
        assert list(self.state.pending) == sorted(self.state.pending, key=lambda p: (p.at, p.cue_id))


TestTakes = Takes.TestCase
TestTakes.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_time_means_the_first_chunk_that_begins_then_or_later() -> None:
    state = made(new_take(), 2)  # ends at frame 21
    for seconds, chunk in ((21 / 16, 2), (21.1 / 16, 3), (33 / 16, 3), (10.0, 14)):
        _, answer = apply(state, AddCue(cue=Cue(prompt="b"), at_s=seconds))
        assert isinstance(answer, Accepted)
        assert answer.due_at.chunk == chunk
        assert answer.due_at.seconds >= seconds - 1e-6
    with pytest.raises(InputError, match="has passed"):
        apply(state, AddCue(cue=Cue(prompt="b"), at_s=1.0))


def test_a_cut_that_waits_moves_what_comes_after_it() -> None:
    state = after(made(new_take(), 1), AddCue(cue=Cue(prompt="b", transition="cut"), at=2))
    _, answer = apply(state, AddCue(cue=Cue(seed=1), at=4))
    assert isinstance(answer, Accepted)
    assert answer.due_at.frame == 9 + 12 + 9 + 12
    assert made(state, 3).end == answer.due_at


def test_a_fade_goes_from_one_prompt_to_the_other() -> None:
    state = made(after(made(new_take(), 2), AddCue(cue=Cue(prompt="b", fade=4))), 6)
    plans = [node.plan for node in path_to(state.head)][2:]
    assert [dict(plan.wording).get("b") for plan in plans] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert [dict(plan.wording).get("a", 0.0) for plan in plans] == [0.75, 0.5, 0.25, 0.0, 0.0, 0.0]
    assert [plan.transition for plan in plans] == ["recache"] * 4 + [None] * 2


def test_a_new_prompt_ends_a_fade() -> None:
    fading = made(after(made(new_take(), 1), AddCue(cue=Cue(prompt="b", fade=8))), 2)
    state = made(after(fading, AddCue(cue=Cue(prompt="c"))), 2)
    assert [node.plan.wording for node in path_to(state.head)][-2:] == [(("c", 1.0),)] * 2


def test_memory_stays_where_only_the_seed_changes() -> None:
    state = made(after(made(new_take(), 1), AddCue(cue=Cue(seed=5))), 1)
    assert state.head is not None
    assert state.head.plan.transition is None
    assert state.head.plan.settings.seed == 5


def test_given_pictures_open_a_take_and_take_their_own_time() -> None:
    given = InitFrames(chunks=2, frames=21)
    state = TakeState(clock=CLOCK, opening=InForce(prompt="a"), given=given)
    state = made(state, 2)
    nodes = path_to(state.head)
    assert [(n.idx, n.start_frame, n.num_frames) for n in nodes] == [(1, 0, 21), (2, 21, 12)]
    assert [n.plan.given for n in nodes] == [given, None]


def test_one_stream_at_a_time_and_no_rewind_under_it() -> None:
    state = after(made(new_take(), 3), Begin())
    with pytest.raises(InputError, match="being streamed already"):
        apply(state, Begin())
    with pytest.raises(InputError, match="close it before going back"):
        apply(state, Rewind(to=0))
    assert after(state, End(), Rewind(to=0)).end.chunk == 1


@pytest.mark.parametrize("to", [-2, 3, 100])
def test_going_back_to_what_is_not_there_is_refused(to: int) -> None:
    with pytest.raises(InputError, match="no chunk"):
        apply(made(new_take(), 3), Rewind(to=to))
    with pytest.raises(InputError, match="no chunk is made yet"):
        apply(new_take(), Rewind(to=0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "changes something"),
        ({"prompt": "b", "fade": 65}, "fade must be less than or equal to 64, got 65"),
        ({"seed": 1, "fade": 2}, "one prompt to another"),
        ({"seed": 1, "transition": "cut"}, "goes with a prompt"),
        ({"prompt": "b", "change": "c"}, "not both"),
        ({"prompt": "b", "fade": 2, "transition": "cut"}, "one prompt to another"),
        ({"steps": 0}, "steps must be greater than or equal to 1, got 0"),
        ({"guidance": 21}, "guidance must be less than or equal to 20"),
        ({"guidance": float("nan")}, "guidance must be"),
        ({"seed": 2**63}, "seed must be less than or equal to"),
    ],
)
def test_a_cue_that_cannot_be_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message), input_errors():
        Cue(**fields)  # type: ignore[arg-type]


def test_a_change_is_added_to_what_is_in_force_when_it_is_applied() -> None:
    state, answer = apply(made(new_take(), 1), AddCue(cue=Cue(change="snow"), at=2))
    assert isinstance(answer, Accepted)
    state = after(state, AddCue(cue=Cue(change="night"), at=3), AddCue(cue=Cue(change="wind"), at=1))
    cancelled = made(after(state, CancelCue(cue_id=answer.cue_id)), 3)
    whole = ["a, wind", "a, wind, snow", "a, wind, snow, night"]
    assert [n.in_force.prompt for n in path_to(made(state, 3).head)] == ["a", *whole]
    assert [n.in_force.prompt for n in path_to(cancelled.head)] == ["a", "a, wind", "a, wind", "a, wind, night"]
    assert [cue.prompt for n in path_to(made(state, 3).head) for _, cue in n.cues] == whole


def test_the_end_of_a_stream_gives_back_what_was_planned() -> None:
    state = after(made(new_take(), 1), AddCue(cue=Cue(prompt="b")), Begin(), PlanChunk(), End())
    assert state.planned is None
    assert [p.cue.prompt for p in state.pending] == ["b"]
    assert after(state, Rewind(to=0)).end.chunk == 1


def test_far_chunks_are_found_at_once() -> None:
    state = made(new_take(), 1)
    for at in range(10, 2000, 10):
        state = after(state, AddCue(cue=Cue(prompt="b", transition="cut"), at=at))
    _, answer = apply(state, AddCue(cue=Cue(seed=1), at=9_000_000))
    assert isinstance(answer, Accepted)
    assert answer.due_at.frame == 9 + 12 * (9_000_000 - 1) - 3 * 199
    _, by_time = apply(state, AddCue(cue=Cue(seed=1), at_s=answer.due_at.seconds))
    assert isinstance(by_time, Accepted)
    assert by_time.due_at == answer.due_at
    with pytest.raises(InputError, match="beyond"):
        apply(state, AddCue(cue=Cue(seed=1), at=10**9))


def test_a_receipt_says_where_the_take_stood_and_where_the_cue_holds() -> None:
    _, answer = apply(made(new_take(), 3), AddCue(cue=Cue(prompt="b"), at=5))
    assert isinstance(answer, Accepted)
    assert (answer.accepted_at.chunk, answer.accepted_at.frame, answer.accepted_at.seconds) == (3, 33, 33 / 16)
    assert (answer.due_at.chunk, answer.due_at.frame, answer.due_at.seconds) == (5, 57, 57 / 16)

"""How a prompt and its changes are read."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.core.errors import InputError
from longtake.core.limits import MAX_PROMPT_CHARACTERS
from longtake.sample.cues import TimedPrompt, cues_from

TEXTS = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=40).filter(
    lambda text: text.strip() and "then" not in text.lower()
)


def test_a_plain_prompt_is_one_cue() -> None:
    assert cues_from("  a tiger walks  ", [], 10) == (TimedPrompt(at_s=0.0, prompt="a tiger walks"),)


def test_then_inside_the_prompt_changes_the_take_half_way() -> None:
    assert cues_from("a tiger walks through a forest, then snow starts to fall", [], 10) == (
        TimedPrompt(at_s=0.0, prompt="a tiger walks through a forest"),
        TimedPrompt(at_s=5.0, prompt="a tiger walks through a forest, snow starts to fall"),
    )


def test_several_beats_are_evenly_spaced_and_add_up() -> None:
    cues = cues_from("a, THEN b,  then c", [], 12)
    assert [(cue.at_s, cue.prompt) for cue in cues] == [(0, "a"), (4, "a, b"), (8, "a, b, c")]


def test_timed_changes_come_in_order_of_time_between_the_beats() -> None:
    cues = cues_from("a, then b", ["7.5s: d", "2 s : c"], 10)
    assert [(cue.at_s, cue.prompt) for cue in cues] == [(0, "a"), (2, "a, c"), (5, "a, c, b"), (7.5, "a, c, b, d")]


@given(at_s=st.floats(0.001, 59.9).map(lambda value: round(value, 3)), opening=TEXTS, text=TEXTS)
def test_what_is_written_is_what_is_read(at_s: float, opening: str, text: str) -> None:
    cues = cues_from(opening, [f"{at_s:.3f}s: {text}"], 60)
    assert cues == (
        TimedPrompt(at_s=0.0, prompt=opening.strip()),
        TimedPrompt(at_s=at_s, prompt=f"{opening.strip()}, {text.strip()}"),
    )


@given(prompt=st.text(), then=st.lists(st.text(), max_size=3), seconds=st.floats())
def test_anything_else_is_well_formed_or_an_input_error(prompt: str, then: list[str], seconds: float) -> None:
    try:
        cues = cues_from(prompt, then, seconds)
    except InputError:
        return
    times = [cue.at_s for cue in cues]
    assert times[0] == 0
    assert all(0 < later < seconds for later in times[1:])
    assert times == sorted(set(times))
    assert all(0 < len(cue.prompt) <= MAX_PROMPT_CHARACTERS for cue in cues)


@pytest.mark.parametrize(
    ("then", "message"),
    [
        ("it snows", "reads"),
        ("4: it snows", "reads"),
        ("4 seconds: it snows", "reads"),
        ("4e1s: it snows", "reads"),
        ("nans: it snows", "reads"),
        ("٤s: it snows", "reads"),
        ("-4s: it snows", "after the start"),
        ("0s: it snows", "after the start"),
        ("0.000s: it snows", "after the start"),
        ("10s: it snows", "after the end"),
        ("9" * 400 + "s: it snows", "after the end"),
        ("4s:", "empty"),
        ("4s:   ", "empty"),
        ("4s: it\nsnows", "control character"),
        ("4s: " + "x" * 1001, "1,001 characters"),
    ],
)
def test_malformed_changes_are_refused(then: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cues_from("a tiger walks", [then], 10)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "empty"),
        (" \t\n ", "empty"),
        ("a tiger\x00walks", "U\\+0000"),
        ("a tiger\x1b[31mwalks", "U\\+001B"),
        ("a tiger \udcff walks", "U\\+DCFF"),
        ("x" * 10_000, "10,000 characters, at most 1,000"),
        (", then it snows", "before ', then'"),
        ("a, then b, then  , then c", "after ', then'"),
        ("x" * 600 + ", then " + "y" * 393, "1,000|with its changes"),
    ],
)
def test_impossible_prompts_are_refused(prompt: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cues_from(prompt, ["3s: " + "z" * 10] if len(prompt) == 1000 else [], 10)


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf, -math.inf])
def test_impossible_lengths_are_refused(seconds: float) -> None:
    with pytest.raises(InputError, match="seconds must be a positive number"):
        cues_from("a tiger walks", [], seconds)


def test_two_changes_at_once_are_refused() -> None:
    with pytest.raises(InputError, match="two changes at 5 s"):
        cues_from("a, then b", ["5.0s: c"], 10)

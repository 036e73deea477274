"""Words that a model knows in any form, and those that it does not."""

import pytest

from longtake.core.vocabulary import Vocabulary

KNOWN = Vocabulary(
    groups={
        "subjects": {"tiger": ("tiger", "big cat"), "bus": ("bus",)},
        "motions": {"walks": ("walks", "walking"), "hops": ("hops",), "flies": ("flies",)},
    },
    other=("red", "forest"),
)


@pytest.mark.parametrize(
    "prompt",
    [
        "A tiger walks through the forest.",
        "tigers walking, then the tiger's walk stops",
        "two buses hop and hopped",
        "A BIG CAT: red!",
        "it begins at 3",
    ],
)
def test_known_words_are_known_in_other_forms(prompt: str) -> None:
    assert KNOWN.unknown(prompt) == ()


def test_unknown_words_are_named_once_in_order_as_written_in_lower_case() -> None:
    assert KNOWN.unknown("A Lion and a wolf walk; the lion growls") == ("lion", "wolf", "growls")
    assert KNOWN.unknown("ein Löwe läuft") == ("ein", "löwe", "läuft")
    assert KNOWN.unknown("") == ()


def test_misspelt_words_lead_to_the_known_one_and_others_nowhere() -> None:
    assert KNOWN.spelt_like("tigr") == "tiger"
    assert KNOWN.spelt_like("forrest") == "forest"
    assert KNOWN.spelt_like("lion") is None


def test_things_are_what_is_said_first_of_each() -> None:
    assert KNOWN.things == ("tiger", "bus", "walks", "hops", "flies")

"""What is nearest to a word that a model does not know: spelt alike, or meaning alike."""

from longtake.core.vocabulary import Vocabulary
from longtake.nets.text import MiniLMEncoder
from longtake.sample.words import Words

SUBJECTS = {name: (name,) for name in ("tiger", "car", "rocket", "mushroom", "sailboat")}
WORDS = Words(vocabulary=Vocabulary(groups={"subjects": SUBJECTS}), encoder=MiniLMEncoder(16))


def test_nearest_is_the_word_that_is_spelt_alike_or_the_thing_that_means_alike() -> None:
    found = WORDS.unknown("a tigr, a lion, a yacht, a lorry and an astronaut")
    assert {word.word: word.nearest for word in found} == {
        "tigr": "tiger",
        "lion": "tiger",
        "yacht": "sailboat",
        "lorry": "car",
        "astronaut": "rocket",
    }
    assert str(found[1]) == '"lion" (nearest: "tiger")'
    assert WORDS.unknown("a tiger") == ()

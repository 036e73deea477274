"""A world's vocabulary holds every word of its captions, by kind of thing."""

from dataclasses import replace

from longtake.worlds.captions import captions_for
from longtake.worlds.sampling import sample_scene
from longtake.worlds.scenes import WorldConfig
from longtake.worlds.vocabulary import vocabulary_of

WORLD = replace(WorldConfig.tiny(), held_out_subjects=("owl",))
KNOWN = vocabulary_of(WORLD)


def test_no_caption_of_the_world_has_an_unknown_word() -> None:
    """Also of scenes that were not read for it."""
    for seed in range(5_000, 5_300):
        for caption in captions_for(sample_scene(WORLD, seed), seed):
            assert KNOWN.unknown(caption) == (), caption


def test_everything_in_the_world_has_its_words_and_nothing_else() -> None:
    assert set(KNOWN.groups["subjects"]) == set(WORLD.subjects)
    assert set(KNOWN.groups["places"]) == set(WORLD.places)
    assert set(KNOWN.groups["motions"]) == set(WORLD.motions)
    assert KNOWN.groups["subjects"]["tiger"][0] == "tiger"
    assert "in a misty forest" in KNOWN.groups["places"]["misty_hillside"]
    assert "walking" in KNOWN.groups["motions"]["walks"]
    assert "it starts to snow" in KNOWN.groups["changes"]["snow_starts"]
    assert KNOWN.unknown("an owl, a lion and a tiger in the desert") == ("owl", "lion", "desert")

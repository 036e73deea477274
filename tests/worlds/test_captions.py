"""Captions are true, various, and change exactly where the scene does."""

import re
from dataclasses import replace

import pytest

from longtake.worlds.captions import caption, captions_for, participle
from longtake.worlds.sampling import sample_scene
from longtake.worlds.scenes import Scene, WorldConfig

SMALL = WorldConfig.small()
SCENES = [sample_scene(SMALL, seed) for seed in range(250)]
SINGLE = [s for s in SCENES if len(s.actors) == 1]


def _opening(scene: Scene, seed: int) -> str:
    """Without what is said of the camera."""
    return ", ".join(part for part in caption(scene, 0, seed).split(", ") if not re.search("camera|view pans", part))


@pytest.mark.parametrize("look_seed", range(3))
def test_a_direction_that_is_named_is_the_way_it_goes(look_seed: int) -> None:
    named = 0
    for scene in SINGLE:
        ways = re.findall(r"\b(left|right)\b", _opening(scene, look_seed))
        if ways:
            named += 1
            assert ways[-1] == scene.actors[0].direction
            assert len(set(ways)) == len(ways)  # "from left to right"
            assert scene.actors[0].moving
    assert named > 30


def test_what_moves_to_the_left_is_said_to_and_to_the_right_about_six_times_in_ten() -> None:
    """So that a prompt that says nothing has one meaning."""
    movers = [s for s in SINGLE if s.actors[0].motion in ("walks", "drives", "sails", "hops")]
    movers = [s for s in movers if s.actors[0].moving and s.camera.kind == "still"]
    for direction, low, high in (("left", 1, 1), ("right", 0.45, 0.7)):
        here = [s for s in movers if s.actors[0].direction == direction]
        said = [bool(re.search("left|right", caption(s, 0, i))) for s in here for i in range(10)]
        assert len(said) >= 100
        assert low <= sum(said) / len(said) <= high


def test_weather_and_night_are_said_when_and_only_when_they_are() -> None:
    words = {"snow": "snow", "rain": "rain", "fog": "fog"}
    for scene in SINGLE:
        text = caption(scene, 0, 1)
        for weather, word in words.items():
            assert (word in text) == (scene.weather == weather), text
        if scene.time != "night":
            assert not re.search(r"\bnight\b|in the dark", text)


def test_nothing_sunny_is_said_in_bad_weather_or_at_night() -> None:
    for scene in SCENES:
        for idx in range(scene.num_chunks):
            state = scene.state_at(idx)
            if state.weather != "clear" or state.time == "night":
                assert not re.search("sunny|sunshine|blue sky", caption(scene, idx, 2))


def test_the_opening_lasts_until_the_first_event() -> None:
    for scene in SCENES:
        texts = captions_for(scene, 7)
        assert len(texts) == 4
        first = scene.events[0].chunk_idx if scene.events else 4
        assert len(set(texts[:first])) == 1
        assert len(set(texts[first:])) <= 1


def test_an_event_may_continue_the_opening_caption() -> None:
    texts = [captions_for(s, i) for i, s in enumerate(SCENES) if s.events]
    continued = sum(t[-1].startswith(f"{t[0]}, ") for t in texts)
    assert 0.25 < continued / len(texts) < 0.6


def test_a_later_event_is_told_after_the_earlier_one() -> None:
    scene = next(s for s in SINGLE if not s.events and s.place == "green_park" and s.time == "day")
    scene = replace(scene, weather="clear").with_events(("snow_starts", 1), ("night_falls", 2))
    for seed in range(60):
        texts = captions_for(scene, seed)
        if texts[2].startswith(f"{texts[0]}, ") and not texts[2].startswith(f"{texts[0]}, the cam"):
            assert re.search("snow.*(night|dark)", texts[2].removeprefix(texts[0]))
            return
    raise AssertionError("no continued caption in 60 seeds")


def test_one_scene_is_told_in_many_ways() -> None:
    assert len({caption(SINGLE[2], 0, seed) for seed in range(200)}) > 80


def test_captions_depend_on_the_seed_alone() -> None:
    assert captions_for(SCENES[5], 11) == captions_for(SCENES[5], 11)


@pytest.mark.parametrize(
    ("verb", "wanted"),
    [
        ("walks", "walking"),
        ("flies", "flying"),
        ("hops", "hopping"),
        ("drives", "driving"),
        ("marches", "marching"),
        ("bounces", "bouncing"),
        ("blasts off", "blasting off"),
        ("stands still", "standing still"),
        ("spins", "spinning"),
        ("lies still", "lying still"),
    ],
)
def test_participles_are_spelt_well(verb: str, wanted: str) -> None:
    assert participle(verb) == wanted

"""Prompts of an evaluation with the classes that the judge must see, from captions of the world's scenes.

Scenes are fully known, so what benchmarks of real video estimate can be checked here. Only classes that a prompt
mentions are expected: a direction that it does not mention is not.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count, islice

from longtake.worlds.assets import place_named, subject_named
from longtake.worlds.captions import captions_for
from longtake.worlds.sampling import sample_scene
from longtake.worlds.scenes import Scene, Split, State, WorldConfig, is_lateral

TASKS = ("subject", "place", "motion", "direction", "time", "weather")
SWITCH_CHUNK = 2  # chunk at which the event of a switch begins
ARTICLES = {"a", "an", "the"}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A prompt, the scene that it describes, and the expected class of each task that it mentions."""

    prompt: str
    scene: Scene
    expected: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Switch:
    """A change of prompt within a take: both prompts, the task that changes, and its class before and after."""

    scene: Scene
    opening: str
    changed: str
    task: str
    before: str
    after: str


def calm(world: WorldConfig) -> WorldConfig:
    """The same world without events and with one subject per scene."""
    return replace(world, event_probability=0.0, second_subject_probability=0.0)


def asked_of(world: WorldConfig, num: int, split: Split = "held_out") -> list[Asked]:
    """The first `num` distinct prompts of a split; the same for each call with the same world."""
    return list(islice(_asked(calm(world), split), num))


def switches_of(world: WorldConfig, num: int) -> list[Switch]:
    """The first `num` changes of time, weather or direction, in scenes of the training split."""
    return list(islice(_switches(replace(calm(world), event_probability=1.0, last_event_chunk=2)), num))


def still_of(world: WorldConfig, num: int) -> list[Asked]:
    """The first `num` prompts under which nothing moves: a still subject, not on water, in clear weather.

    The time of day is the place's usual one.
    """
    still = replace(calm(world), motions=("stands still",), weather_probability=0.0, time_probability=0.0)
    dry = (one for one in _asked(still, "train") if one.scene.actors[0].support != "water")
    return list(islice(dry, num))


def facts(scene: Scene, state: State) -> dict[str, str]:
    """Class of each task in a scene's state; without a direction unless the subject moves to the left or right."""
    actor = scene.actors[0]
    still = not state.moving or actor.motion == "stands still"
    found = {"subject": actor.subject, "place": scene.place, "time": state.time, "weather": state.weather}
    found["motion"] = "stands still" if still else actor.motion
    if not still and state.direction and is_lateral(actor.motion, subject_named(actor.subject)):
        found["direction"] = state.direction
    return found


def _asked(world: WorldConfig, split: Split) -> Iterator[Asked]:
    known: set[str] = set()
    for seed in count():
        scene = sample_scene(world, seed, split)
        prompt = captions_for(scene, seed)[0]
        expected = facts(scene, scene.state_at(0))
        if prompt in known or not ARTICLES & set(prompt.split()):  # a few captions are keywords without the motion
            continue
        if expected["time"] not in (place_named(scene.place).time_of_day, *prompt.replace(",", "").split()):
            continue  # the time of day is not the place's usual one, and the caption does not mention it
        if expected.get("direction", "") not in prompt:
            del expected["direction"]
        known.add(prompt)
        yield Asked(prompt=prompt, scene=scene, expected=expected)


def _switches(world: WorldConfig) -> Iterator[Switch]:
    for seed in count():
        scene = sample_scene(world, seed)
        if len(scene.events) != 1 or scene.events[0].chunk_idx != SWITCH_CHUNK:
            continue
        opening, changed = (captions_for(scene, seed)[i] for i in (0, SWITCH_CHUNK))
        before, after = (facts(scene, scene.state_at(i)) for i in (0, SWITCH_CHUNK))
        task = next((t for t in ("weather", "time", "direction") if before.get(t) != after.get(t)), None)
        if task is None or task not in before or task not in after or not ARTICLES & set(changed.split()):
            continue
        yield Switch(scene=scene, opening=opening, changed=changed, task=task, before=before[task], after=after[task])

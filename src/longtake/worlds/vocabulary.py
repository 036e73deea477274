"""Vocabulary of a world's captions, by kind of thing."""

from longtake.core.vocabulary import Vocabulary, words_of
from longtake.worlds.assets import place_named, subject_named
from longtake.worlds.captions import CHANGES, TIMES, WEATHERS, captions_for, participle
from longtake.worlds.config import WorldConfig
from longtake.worlds.sampling import sample_scene

SAMPLED = 1500  # scenes whose captions are scanned for all other words


def vocabulary_of(world: WorldConfig) -> Vocabulary:
    """Vocabulary of a model trained on this world; held-out subjects are not in it."""
    hours = {place_named(place).time_of_day for place in world.places} | {"night", "sunset"}
    groups = {
        "subjects": {
            subject: tuple(dict.fromkeys(name.noun for name in subject_named(subject).names))
            for subject in world.subjects
        },
        "places": {place: _place(world, place) for place in world.places},
        "motions": {motion: _motion(world, motion) for motion in world.motions},
        "times": {hour: (hour, *dict.fromkeys(TIMES[hour])) for hour in sorted(hours)},
        "weather": {weather: (weather, *WEATHERS[weather]) for weather in WEATHERS},
        "changes": {
            **{kind: tuple(dict.fromkeys(p.removeprefix("then ") for p in CHANGES[kind])) for kind in CHANGES},
            "turns_around": ("turns around", "turns back"),
            "stops": ("stops", "stands still", "comes to a stop"),
            "starts_moving": ("starts moving", "begins to move"),
        },
    }
    captions = (c for seed in range(SAMPLED) for c in captions_for(sample_scene(world, seed), seed))
    return Vocabulary(groups=groups, other=tuple(sorted({word for caption in captions for word in words_of(caption)})))


def _place(world: WorldConfig, place: str) -> tuple[str, ...]:
    chosen = [view for named, view in world.views if named == place]
    views = [view for idx, view in enumerate(place_named(place).views) if not chosen or idx in chosen]
    phrases = [(v.names.keyword, *v.names.at, *v.names.along, *v.names.over, *v.captions) for v in views]
    return tuple(dict.fromkeys(phrase for view in phrases for phrase in view))


def _motion(world: WorldConfig, motion: str) -> tuple[str, ...]:
    verbs = [motion, *(v for s in world.subjects for v in subject_named(s).verbs.get(motion, ()))]
    return tuple(dict.fromkeys(form for verb in verbs for form in (verb, participle(verb))))

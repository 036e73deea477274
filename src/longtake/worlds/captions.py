"""Captions of scenes: true English sentences for each chunk, in many wordings.

A caption is a pure function of (scene, chunk, seed). Chunks between which nothing changes share a
caption; after an event it is either a new description, the opening sentence continued, or the
change alone.
"""

from random import Random

from longtake.core.noise import rng_for
from longtake.worlds.assets import Name, Subject, place_named, subject_named
from longtake.worlds.scenes import VERTICAL, Actor, Scene, State, is_lateral

_OPPOSITE = {"left": "right", "right": "left"}
# Probability that a sentence states that a subject moves to the right. Where nothing is said, it does: one prompt then
# has one meaning, and a small model need not choose. Keyword captions state no direction.
_RIGHT_PROBABILITY = 0.6
_DOUBLED = {"hop", "run", "spin", "plod", "trot", "strut", "drop", "sit", "skid", "swim"}
_COLOURED_KINDS = {"vehicle", "ball", "object", "toy"}
_COLOUR_WORDS = {
    "black", "white", "gray", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown",
}  # fmt: skip
# Words about the time of day or the sky. A place's phrase with one of them is true only in the photographed state.
_LIGHT_WORDS = (
    "sunny", "sunshine", "blue sky", "purple sky", "gray sky", "evening sky", "dawn", "sunrise",
    "sunset", "dusk", "morning", "evening", "daybreak", "golden", "night", "stars", "starry",
    "clouds", "bright", "sun comes", "foggy", "mist", "dewy", "light", "dark",
)  # fmt: skip

TIMES = {
    "night": ("at night", "in the dark", "at night", "on a dark night"),
    "sunset": ("at sunset", "at sunset", "as the sun sets", "in warm evening light", "at dusk"),
    "dawn": ("at dawn", "early in the morning"),
    "sunrise": ("at sunrise", "in the morning"),
    "day": ("by day", "in daylight", "during the day"),
}
WEATHERS = {
    "rain": ("in the rain", "rain falling", "while it rains", "in heavy rain", "with rain falling"),
    "snow": (
        "in the snow",
        "snow falling",
        "while it snows",
        "in falling snow",
        "with snow falling",
    ),
    "fog": ("in the fog", "in thick fog", "in fog", "surrounded by fog", "on a foggy day"),
}
_CAMERAS = {
    "pan_left": ("the camera pans left", "camera panning to the left", "the view pans left"),
    "pan_right": ("the camera pans right", "camera panning to the right", "the view pans right"),
    "push_in": ("the camera moves closer", "slow zoom in", "the camera slowly pushes in"),
}
CHANGES = {
    "night_falls": ("night falls", "then night falls", "it gets dark", "then it becomes night"),
    "sun_sets": (
        "the sun sets",
        "then the sun sets",
        "then the sun goes down",
        "the sun goes down",
    ),
    "snow_starts": (
        "then snow starts to fall",
        "it starts to snow",
        "snow begins to fall",
        "then it begins to snow",
        "it starts snowing",
    ),
    "rain_starts": (
        "then it begins to rain",
        "it starts to rain",
        "rain starts to fall",
        "then rain begins to fall",
        "it starts raining",
    ),
    "fog_rolls_in": (
        "fog rolls in",
        "then fog rolls in",
        "then thick fog comes in",
        "it gets foggy",
    ),
}


def caption(scene: Scene, chunk_idx: int, seed: int) -> str:
    """Caption that is true of one chunk; `seed` selects one of many wordings.

    All chunks before the first event share the opening sentence.
    """
    begun = scene.events_by(chunk_idx)
    if not begun:
        return _describe(scene, chunk_idx, _draw(scene, seed, "opening"))
    draw = _draw(scene, seed, f"event {len(begun)}")
    style = draw.random()
    if style < 0.5:
        return _describe(scene, chunk_idx, draw, changed=True)
    changes = []
    for num, event in enumerate(begun):
        changes.append(_change(scene, event.kind, event.chunk_idx, _draw(scene, seed, f"change {num}")))
    if style < 0.9:
        return ", ".join([_describe(scene, 0, _draw(scene, seed, "opening"), up_to=0), *changes])
    return changes[-1].removeprefix("then ")


def captions_for(scene: Scene, seed: int) -> list[str]:
    """Captions of all chunks of the scene's clip."""
    return [caption(scene, idx, seed) for idx in range(scene.num_chunks)]


def participle(verb: str) -> str:
    """Convert a third-person verb to its -ing form: "takes off" becomes "taking off"."""
    head, _, rest = verb.partition(" ")
    if head == "is":
        return rest
    if head == "lies":
        head = "lys"
    if head.endswith("ies"):
        stem = head[:-3] + "y"
    elif head.endswith(("ches", "shes", "sses", "oes")):
        stem = head[:-2]
    else:
        stem = head.removesuffix("s")
    if stem in _DOUBLED:
        stem += stem[-1]
    elif stem.endswith("e") and not stem.endswith("ee"):
        stem = stem[:-1]
    return f"{stem}ing {rest}".strip()


def _draw(scene: Scene, seed: int, what: str) -> Random:
    return Random(rng_for(seed, ("caption", scene.seed, what)).initial_seed())


def _pick(draw: Random, options: tuple[str, ...] | list[str]) -> str:
    return options[int(draw.random() * len(options))]


def _describe(scene: Scene, chunk_idx: int, draw: Random, *, changed: bool = False, up_to: int | None = None) -> str:
    """Full description of the scene's state at a chunk or, with `up_to=0`, before any event."""
    state = _opening_state(scene) if up_to == 0 else scene.state_at(chunk_idx)
    if draw.random() < 0.07 and not changed and len(scene.actors) == 1 and state.direction != "left":
        return _keywords(scene, state)
    progressive = draw.random() < 0.3
    turned = changed and scene.events_by(chunk_idx)[-1].kind == "turns_around"
    told = [
        _actor_phrase(a, state if i == 0 else None, draw, progressive=progressive, turned=turned and i == 0)
        for i, a in enumerate(scene.actors)
    ]
    if len(told) == 2:
        joiner = _pick(draw, [" and ", " while ", ", "] if not progressive else [" and ", ", "])
        what = joiner.join(told)
    else:
        what = told[0]
    where = _where(scene, state, draw)
    extras = _sky(scene, state, draw, must=changed)
    if scene.camera.kind != "still" and draw.random() < 0.5:
        extras.append(_pick(draw, _CAMERAS[scene.camera.kind]))
    front = draw.random()
    if front < 0.18:
        return ", ".join([where, what, *extras])
    if front < 0.28 and extras and extras[0].split(" ")[0] in {"in", "at", "on", "by", "during"}:
        return ", ".join([extras[0], f"{what} {where}", *extras[1:]])
    text = f"{what} {where}"
    for extra in extras:
        clause = extra.split(" ")[0] in {"in", "at", "on", "by", "during", "as", "while", "with"}
        text += f" {extra}" if clause and draw.random() < 0.6 else f", {extra}"
    return text


def _opening_state(scene: Scene) -> State:
    first = scene.actors[0]
    return State(time=scene.time, weather=scene.weather, moving=first.moving, direction=first.direction)


def _keywords(scene: Scene, state: State) -> str:
    actor = scene.actors[0]
    words = [subject_named(actor.subject).names[0].noun]
    words.append(scene.view.names.keyword)
    if state.weather != "clear":
        words.append(state.weather)
    if state.time != "day":
        words.append(state.time)
    return ", ".join(words)


def _named(subject: Subject, draw: Random) -> str:
    name = subject.names[0]
    if draw.random() < 0.35:
        name = subject.names[int(draw.random() * len(subject.names))]
    plain = not _COLOUR_WORDS & set(name.noun.split()) and not subject.multicoloured
    if plain and subject.kind in _COLOURED_KINDS and draw.random() < 0.4:
        colour = subject.colours[0]
        name = Name(article="an" if colour == "orange" else "a", noun=f"{colour} {name.noun}")
    return f"{name.article} {name.noun}"


def _actor_phrase(actor: Actor, state: State | None, draw: Random, *, progressive: bool, turned: bool) -> str:
    """Clause for one actor, such as "a tiger walks to the left" or "a balloon rises".

    Args:
        actor: the subject and its motion.
        state: state of the chunk for the first actor, None for others.
        draw: random numbers that select the wording.
        progressive: whether to write "walking" instead of "walks".
        turned: whether the actor has just turned around, so that its direction must be stated.
    """
    subject = subject_named(actor.subject)
    moving = actor.moving if state is None else state.moving
    direction = actor.direction if state is None else state.direction
    lateral = is_lateral(actor.motion, subject)
    verb, way = "", ""
    if not moving or actor.motion == "stands still":
        verb = _still_verb(actor, subject, draw)
    else:
        verb = actor.motion
        others = subject.verbs.get(actor.motion, ())
        if actor.motion == "floats" and not lateral:
            others = tuple(v for v in others if v not in {"swims", "paddles"})
        if others and draw.random() < 0.35:
            verb = _pick(draw, others)
        if lateral and direction and (draw.random() < _RIGHT_PROBABILITY or turned or direction == "left"):
            way = _pick(
                draw,
                (
                    direction,
                    f"to the {direction}",
                    direction,
                    f"toward the {direction}",
                    f"from {_OPPOSITE[direction]} to {direction}",
                ),
            )
        elif actor.motion in VERTICAL and " " not in verb and draw.random() < 0.4:
            way = {
                "rises": ("up", "into the air", "upward"),
                "falls": ("down", "downward", "slowly down"),
            }[actor.motion][int(draw.random() * 3)]
        elif actor.motion == "bounces" and draw.random() < 0.5:
            way = "up and down"
    if progressive:
        verb = participle(verb)
    return f"{_named(subject, draw)} {verb} {way}".strip()


def _still_verb(actor: Actor, subject: Subject, draw: Random) -> str:
    if actor.support == "water":
        return _pick(draw, ("lies still", "stays still", "floats in place"))
    if subject.kind == "animal":
        return _pick(draw, ("stands still", "stands still", "stands", "waits", "stays still"))
    if subject.kind == "vehicle":
        return _pick(draw, ("stands still", "is parked", "stands", "waits"))
    return _pick(draw, ("stands still", "rests", "stays still", "stands still"))


def _where(scene: Scene, state: State, draw: Random) -> str:
    place, view, actor = place_named(scene.place), scene.view, scene.actors[0]
    as_photographed = state.time == place.time_of_day and state.weather == "clear" and not scene.events
    names = view.names
    phrases = [c for c in view.captions if as_photographed or not any(w in c for w in _LIGHT_WORDS)]
    aloft = all(a.support == "air" for a in scene.actors)
    if aloft:  # "flies on a lawn" would be wrong
        phrases = [c for c in phrases if c.startswith(("in ", "over ", "above ", "between "))]
    elif view.surface == "water":
        phrases = [c for c in phrases if not c.startswith(("over ", "above ", "between "))]
    if view.surface is None:
        return _pick(draw, phrases or names.at)
    moves = is_lateral(actor.motion, subject_named(actor.subject)) and state.moving
    if phrases and draw.random() < 0.35:
        return _pick(draw, phrases)
    if aloft:
        return _pick(draw, names.over)
    if moves and len(scene.actors) == 1 and draw.random() < 0.5:
        return _pick(draw, names.along)
    return _pick(draw, names.at)


def _sky(scene: Scene, state: State, draw: Random, *, must: bool) -> list[str]:
    """Phrases for the time of day and the weather; `must` makes stating the time more likely."""
    said = []
    native = place_named(scene.place).time_of_day
    weather_first = draw.random() < 0.5
    chance = 1.0 if must else {"night": 0.92, "sunset": 0.92}.get(state.time, 0.35)
    if state.time == "day":
        chance = 0.06 if state.weather == "clear" and scene.view.captions else 0.0
    elif state.time == native:
        chance = min(chance, 0.5) if state.time != "night" else 0.9
    if draw.random() < chance:
        said.append(_pick(draw, TIMES[state.time]))
    if state.weather != "clear":
        options = WEATHERS[state.weather]
        if state.time != "day":
            options = tuple(o for o in options if "day" not in o)
        said.insert(0 if weather_first else len(said), _pick(draw, options))
    return said


def _change(scene: Scene, kind: str, chunk_idx: int, draw: Random) -> str:
    """Clause for the change that an event makes."""
    if kind in CHANGES:
        return _pick(draw, CHANGES[kind])
    state = scene.state_at(chunk_idx)
    actor = scene.actors[0]
    subject = subject_named(actor.subject)
    it = "it"
    if len(scene.actors) > 1 or draw.random() < 0.3:
        it = f"the {subject.names[0].noun}"
    verb = actor.motion
    way = state.direction or "away"
    if kind == "turns_around":
        options = (
            f"{it} turns around",
            f"then {it} turns around",
            f"{it} turns around and {verb} {way}",
            f"then {it} turns and {verb} to the {way}",
            f"then {it} {verb} back to the {way}",
        )
    elif kind == "stops":
        options = (
            f"{it} stops",
            f"then {it} stops",
            f"then {it} stands still",
            f"then {it} comes to a stop",
        )
        if actor.support == "water":
            options = tuple(o for o in options if "stands" not in o)
    else:
        base = {"flies": "fly"}.get(verb, verb.removesuffix("s"))
        options = (
            f"then {it} starts to {base}",
            f"{it} starts {participle(verb)} {way}",
            f"then {it} {verb} {way}",
            f"{it} begins to {base} to the {way}",
            f"{it} starts moving",
        )
    return _pick(draw, options)

"""Scenes of a world: their description, sampling and possible events.

A scene holds every number that the renderer, the captions and the evaluation need; nothing is sampled later. Lengths
on the picture are fractions of its width or height, angles are in degrees, times in frames.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any, TypeVar

from longtake.core.errors import ConfigError, InputError
from longtake.core.noise import rng_for
from longtake.core.shapes import Span, Stride
from longtake.worlds.assets import Place, Subject, View, place_named, subject_named
from longtake.worlds.config import FORMAT, WorldConfig
from longtake.worlds.splits import (
    VERTICAL,
    HeldOut,
    Split,
    company_in,
    feasible_scenes,
    held_out_pairs,
    support_for,
)

__all__ = [
    "FORMAT",
    "VERTICAL",
    "Actor",
    "Camera",
    "Event",
    "HeldOut",
    "Scene",
    "Split",
    "State",
    "WorldConfig",
    "chunk_frames",
    "distance",
    "distances",
    "held_out_pairs",
    "is_held_out",
    "is_lateral",
    "pace_changes",
    "possible_events",
    "sample_scene",
    "support_for",
]

LATERAL = ("walks", "runs", "hops", "drives", "sails", "flies", "rolls")
EVENTS = (
    "night_falls",
    "sun_sets",
    "snow_starts",
    "rain_starts",
    "fog_rolls_in",
    "turns_around",
    "stops",
    "starts_moving",
)
WEATHER_EVENTS = {"snow_starts": "snow", "rain_starts": "rain", "fog_rolls_in": "fog"}
TIME_EVENTS = {"night_falls": "night", "sun_sets": "sunset"}
MOTION_EVENTS = ("turns_around", "stops", "starts_moving")
RAMP_FRAMES = 8  # frames that an event takes to complete
_SPEEDS = {  # ranges of speed in picture widths per second
    "walks": (0.11, 0.18),
    "runs": (0.2, 0.28),
    "hops": (0.12, 0.2),
    "drives": (0.16, 0.26),
    "sails": (0.1, 0.17),
    "flies": (0.15, 0.25),
    "rolls": (0.14, 0.22),
    "floats": (0.07, 0.12),
}
_SWIMS = frozenset({"swims", "paddles"})

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Change that starts at the first frame of a chunk."""

    kind: str  # member of EVENTS
    chunk_idx: int
    frame: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Actor:
    """One subject and its motion. Screen positions are those for a camera that does not move."""

    subject: str
    motion: str
    direction: str | None  # direction of motion, or facing, at frame 0: "left" or "right"
    moving: bool  # whether it moves at frame 0
    support: str  # "ground", "water" or "air"
    height: float  # height, as a fraction of the picture's
    x: float  # centre at frame 0, as a fraction of the width
    y: float  # contact point (ground, water) or centre (air), as a fraction of the height
    speed: float  # widths per second for lateral motions, heights per second for vertical ones, else 0
    phase: float  # phase of the gait, in [0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Camera:
    """Pinhole camera in the middle of a place. Its movement slows down and ends after `travel`."""

    kind: str  # "still", "pan_left", "pan_right", "push_in"
    azimuth: float
    pitch: float
    field: float = 60.0  # horizontal field of view at frame 0
    rate: float = 0.0  # speed in degrees (pan) or doublings of the focal length (push) per second
    travel: float = 0.0  # extent of the movement in degrees or doublings


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """State of a scene in one chunk, the ground truth for captions and evaluation."""

    time: str
    weather: str
    moving: bool  # whether the first actor moves
    direction: str | None  # direction of the first actor


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """Complete description of what happens; it has no end, and a clip shows the first `num_frames` frames."""

    place: str
    view_idx: int
    actors: tuple[Actor, ...]  # actors, of which events change the first
    camera: Camera
    time: str  # time of day at frame 0: "day", "sunset", "night", or that of the place's photograph
    weather: str  # weather at frame 0: "clear", "rain", "snow", "fog"
    events: tuple[Event, ...]  # events in order of time
    seed: int  # seed of the positions of flakes and drops
    num_frames: int
    chunk: int
    fps: int
    height_px: int
    width_px: int

    @property
    def view(self) -> View:
        """View of the place that is shown."""
        return place_named(self.place).views[self.view_idx]

    @property
    def num_chunks(self) -> int:
        """Number of chunks of the clip."""
        return -(-Stride().latent_frames(self.num_frames) // self.chunk)

    def chunk_frames(self, chunk_idx: int) -> range:
        """Range of the frames of a chunk, cut off at the end of the clip."""
        frames = chunk_frames(chunk_idx, self.chunk)
        return range(frames.start, min(frames.stop, self.num_frames))

    def events_by(self, chunk_idx: int) -> tuple[Event, ...]:
        """Events that start at this chunk or before it."""
        return tuple(e for e in self.events if e.chunk_idx <= chunk_idx)

    def state_at(self, chunk_idx: int) -> State:
        """State in a chunk; an event of the chunk counts as complete from its first frame."""
        actor = self.actors[0]
        time, weather, moving, direction = self.time, self.weather, actor.moving, actor.direction
        for event in self.events_by(chunk_idx):
            time = TIME_EVENTS.get(event.kind, time)
            weather = WEATHER_EVENTS.get(event.kind, weather)
            if event.kind == "turns_around":
                direction = "left" if direction == "right" else "right"
            elif event.kind == "stops":
                moving = False
            elif event.kind == "starts_moving":
                moving = True
        return State(time=time, weather=weather, moving=moving, direction=direction)

    def lasting(self, num_frames: int) -> "Scene":
        """Scene with a clip of `num_frames` frames.

        Raises:
            ShapeError: `num_frames` is not a length a video can have.
        """
        Stride().latent_frames(num_frames)
        return replace(self, num_frames=num_frames)

    def at_rest(self) -> "Scene":
        """Scene with the same opening in clear weather without motion or events.

        Actors on water are removed, since they would sway.
        """
        actors = tuple(
            replace(actor, motion="stands still", moving=False, speed=0.0)
            for actor in self.actors
            if actor.support != "water"
        )
        return replace(self, actors=actors, events=(), weather="clear")

    def with_events(self, *events: tuple[str, int]) -> "Scene":
        """Scene with the same opening and other events, each (kind, chunk index).

        Raises:
            InputError: an event is unknown, or cannot happen in this scene.
        """
        made = tuple(
            Event(kind=kind, chunk_idx=idx, frame=chunk_frames(idx, self.chunk).start)
            for kind, idx in sorted(events, key=lambda e: e[1])
        )
        for before, event in enumerate(made):
            possible = possible_events(replace(self, events=made[:before]), event.chunk_idx)
            if event.kind not in possible:
                raise InputError(
                    f'"{event.kind}" cannot happen at chunk {event.chunk_idx} of this scene; '
                    f"possible: {', '.join(possible)}"
                )
        return replace(self, events=made)

    def to_json(self) -> dict[str, Any]:
        """Convert to plain lists, dicts, numbers and strings."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Scene":
        """Inverse of `to_json`."""
        fields = dict(data)
        fields["actors"] = tuple(Actor(**a) for a in data["actors"])
        fields["events"] = tuple(Event(**e) for e in data["events"])
        fields["camera"] = Camera(**data["camera"])
        return cls(**fields)


def chunk_frames(chunk_idx: int, chunk: int) -> range:
    """Range of the frames of chunk `chunk_idx`, for chunks of `chunk` latent frames."""
    span = Span(idx=chunk_idx, start=chunk_idx * chunk, stop=(chunk_idx + 1) * chunk)
    return span.frames(Stride())


def is_lateral(motion: str, subject: Subject) -> bool:
    """Whether a motion of a subject goes left or right."""
    return motion in LATERAL or (motion == "floats" and _swims(subject))


def possible_events(scene: Scene, chunk_idx: int) -> tuple[str, ...]:
    """Events that would change something if they started at `chunk_idx`."""
    state = scene.state_at(chunk_idx)
    outdoor = place_named(scene.place).setting == "outdoor"
    actor = scene.actors[0]
    subject = subject_named(actor.subject)
    lateral = is_lateral(actor.motion, subject)
    found = []
    if state.time != "night":
        found.append("night_falls")
    if outdoor and state.time == "day":
        found.append("sun_sets")
    if outdoor and state.weather == "clear":
        found += list(WEATHER_EVENTS)
    if lateral and state.moving:
        found.append("turns_around")
    if lateral and actor.support != "air":
        found.append("stops" if state.moving else "starts_moving")
    return tuple(found)


def is_held_out(config: WorldConfig, scene: Scene) -> bool:
    """Whether a scene has a view, subject or pair that is held out from training."""
    pairs = held_out_pairs(config)
    return (scene.place, scene.view_idx) in config.held_out_views or any(
        a.subject in config.held_out_subjects
        or (a.subject, scene.place) in pairs.subject_places
        or (a.subject, a.motion) in pairs.subject_motions
        for a in scene.actors
    )


def sample_scene(config: WorldConfig, seed: int, split: Split = "train") -> Scene:
    """Sample the scene of a seed in a world and split, as a pure function of the arguments.

    Raises:
        ConfigError: the split has no feasible scene.
    """
    draw = Random(rng_for(seed, ("scene", config.hash, split)).initial_seed())
    feasible = feasible_scenes(config, split)
    if not feasible:
        raise ConfigError(f'the world has no scene in split "{split}"; raise held_out_fraction')
    subject_id = _pick(draw, sorted(feasible))
    motions = sorted(feasible[subject_id])
    motion = _pick(draw, [*motions, *(m for m in motions if m in LATERAL)])  # lateral motions count twice
    place_id = _pick(draw, sorted(feasible[subject_id][motion]))
    view_idx = _pick(draw, feasible[subject_id][motion][place_id])
    place = place_named(place_id)
    view = place.views[view_idx]
    camera = _sample_camera(draw, config, view)
    actors = [_sample_actor(draw, config, view, camera, subject_id, motion)]
    if draw.random() < config.second_subject_probability:
        second = _sample_second(draw, config, place_id, view_idx, camera, actors[0])
        actors += [] if second is None else [second]
    time, weather = _sample_sky(draw, config, place)
    scene = Scene(
        place=place_id,
        view_idx=view_idx,
        actors=tuple(actors),
        camera=camera,
        time=time,
        weather=weather,
        events=(),
        seed=draw.getrandbits(31),
        num_frames=config.num_frames,
        chunk=config.chunk,
        fps=config.fps,
        height_px=config.size.height,
        width_px=config.size.width,
    )
    if draw.random() < config.event_probability:
        scene = _add_event(draw, config, scene)
    return _centre_paths(draw, scene)


def distance(scene: Scene, actor_idx: int, frame: int) -> float:
    """Distance that an actor has covered by `frame`, in seconds at full speed, forwards positive."""
    return distances(scene, actor_idx, range(frame, frame + 1))[0]


def distances(scene: Scene, actor_idx: int, frames: range) -> list[float]:
    """Values of `distance` at each of `frames`."""
    pace = 1.0 if scene.actors[actor_idx].moving else 0.0
    changes = [(event.frame, change) for event, change in pace_changes(scene, actor_idx)]
    gone = []
    for frame in frames:
        total = pace * frame
        for start, change in changes:  # integral of a pace that changes linearly over the ramp
            since = max(0, frame - start)
            ramp = min(since, RAMP_FRAMES)
            total += change * (ramp * ramp / (2 * RAMP_FRAMES) + since - ramp)
        gone.append(total / scene.fps)
    return gone


def pace_changes(scene: Scene, actor_idx: int) -> list[tuple[Event, float]]:
    """Change of an actor's signed pace at each motion event; the pace is 1 forwards, 0 at rest, -1 backwards."""
    changes = []
    if actor_idx == 0:
        pace, forwards = (1.0 if scene.actors[0].moving else 0.0), 1.0
        for event in scene.events:
            if event.kind not in MOTION_EVENTS:
                continue
            if event.kind == "turns_around":
                forwards = -forwards
            new = 0.0 if event.kind == "stops" else forwards
            changes.append((event, new - pace))
            pace = new
    return changes


def _swims(subject: Subject) -> bool:
    return not _SWIMS.isdisjoint(subject.verbs.get("floats", ()))


def _pick(draw: Random, options: Sequence[_T]) -> _T:
    return options[int(draw.random() * len(options))]


def _sample_camera(draw: Random, config: WorldConfig, view: View) -> Camera:
    low, high = _narrowed(view.azimuth, config.camera_range)
    kind = "still"
    if draw.random() < config.camera_probability:
        kind = _pick(draw, ("pan_left", "pan_right", "push_in"))
    travel, rate = 0.0, 0.0
    if kind.startswith("pan"):
        travel = min(draw.uniform(7, 12), high - low)
        rate = travel / 2.6
    elif kind == "push_in":
        travel = draw.uniform(0.25, 0.4)
        rate = travel / 2.6
    room_left, room_right = (travel if kind == k else 0.0 for k in ("pan_left", "pan_right"))
    return Camera(
        kind=kind,
        azimuth=round(draw.uniform(low + room_left, high - room_right), 2),
        pitch=round(draw.uniform(*_narrowed(view.pitch, config.camera_range)), 2),
        field=view.field,
        rate=round(rate, 4),
        travel=round(travel, 4),
    )


def _narrowed(bounds: tuple[float, float], share: float) -> tuple[float, float]:
    low, high = bounds
    middle, reach = (low + high) / 2, share * (high - low) / 2
    return middle - reach, middle + reach


def _sample_actor(draw: Random, config: WorldConfig, view: View, camera: Camera, subject_id: str, motion: str) -> Actor:
    subject = subject_named(subject_id)
    support = support_for(subject, motion, view)
    assert support is not None
    near = draw.random()
    low, high = config.rows[("small", "medium", "large").index(subject.size)]
    scale = (low + (high - low) * (0.7 * near + 0.3 * draw.random())) / 96
    height = min(scale * math.sqrt(subject.height_px / subject.width_px), 0.62)
    lateral = is_lateral(motion, subject)
    sided = lateral or subject.facing != "front"
    speed = 0.0
    if lateral:
        speed = draw.uniform(*_SPEEDS[motion])
    elif motion in VERTICAL:
        speed = draw.uniform(0.12, 0.18)
    if support == "air":
        # Rising subjects begin low and falling ones high, so that they stay visible for a clip.
        y = {"rises": 0.72, "falls": 0.22}.get(motion, 0.3 + 0.2 * draw.random())
        y += draw.uniform(-0.05, 0.05)
        if motion not in VERTICAL:
            y = max(y, height / 2 + 0.06)
    else:
        y = _contact_row(config, view, camera, near, height)
    return Actor(
        subject=subject_id,
        motion=motion,
        direction=_pick(draw, ("left", "right")) if sided else None,
        moving=True,
        support=support,
        height=round(height, 4),
        x=round(draw.uniform(0.36, 0.64), 4),
        y=round(y, 4),
        speed=round(speed, 4),
        phase=round(draw.random(), 4),
    )


def _contact_row(config: WorldConfig, view: View, camera: Camera, near: float, height: float) -> float:
    """Row of a contact point within the range that the view allows, as a fraction of the height."""
    assert view.ground_elevation is not None
    focal = config.size.width / 2 / math.tan(math.radians(camera.field / 2))

    def row(elevation: float) -> float:
        return 0.5 - focal * math.tan(math.radians(elevation - camera.pitch)) / config.size.height

    closest, farthest = (row(e) for e in view.ground_elevation)
    farthest = min(max(farthest, height + 0.06, 0.6), 0.9)
    closest = min(max(closest, farthest), 0.93)
    return farthest + (closest - farthest) * near


def _sample_second(
    draw: Random,
    config: WorldConfig,
    place_id: str,
    view_idx: int,
    camera: Camera,
    first: Actor,
) -> Actor | None:
    """Sample a second actor beside the first one; None if no subject fits."""
    options = {s: m for s, m in company_in(config, place_id, view_idx).items() if s != first.subject}
    if not options:
        return None
    subject_id = _pick(draw, tuple(options))
    motion = _pick(draw, options[subject_id])
    view = place_named(place_id).views[view_idx]
    return _sample_actor(draw, config, view, camera, subject_id, motion)


def _sample_sky(draw: Random, config: WorldConfig, place: Place) -> tuple[str, str]:
    time, weather = place.time_of_day, "clear"
    outdoor = place.setting == "outdoor"
    if draw.random() < config.time_probability and time != "night":
        time = _pick(draw, ("night", "sunset")) if outdoor and time == "day" else "night"
    if draw.random() < config.weather_probability and outdoor:
        weather = _pick(draw, ("rain", "snow", "fog"))
    return time, weather


def _add_event(draw: Random, config: WorldConfig, scene: Scene) -> Scene:
    last = min(config.last_event_chunk, config.num_chunks - 1)
    if last < 1:
        return scene
    chunk_idx = 1 + int(draw.random() * last)
    options = list(possible_events(scene, chunk_idx))
    if "stops" in options:
        options.append("starts_moving")
    if not options:
        return scene
    kind = _pick(draw, options)
    if kind == "starts_moving":
        scene = replace(scene, actors=(replace(scene.actors[0], moving=False), *scene.actors[1:]))
    return scene.with_events((kind, chunk_idx))


def _centre_paths(draw: Random, scene: Scene) -> Scene:
    """Place every actor so that its path over the first seconds stays inside the picture."""
    frames = range(0, min(scene.num_frames, 45), 4)
    actors = []
    for idx, actor in enumerate(scene.actors):
        sides = (0.5, 0.5) if len(scene.actors) == 1 else ((0.3, 0.7), (0.7, 0.3))[idx]
        side = sides[0] if actor.speed == 0 or actor.motion in VERTICAL else 0.5
        if is_lateral(actor.motion, subject_named(actor.subject)):
            sign = 1.0 if actor.direction == "right" else -1.0
            path = [sign * actor.speed * gone for gone in distances(scene, idx, frames)]
            mid = (min(path) + max(path)) / 2
            x = side - mid + draw.uniform(-0.08, 0.08)
        else:
            x = side + draw.uniform(-0.12, 0.12)
            if scene.camera.kind.startswith("pan"):  # a subject at rest drifts against the pan
                drift = 0.4 * scene.camera.travel / scene.camera.field
                x += drift if scene.camera.kind == "pan_right" else -drift
        actors.append(replace(actor, x=round(x, 4)))
    return replace(scene, actors=tuple(actors))

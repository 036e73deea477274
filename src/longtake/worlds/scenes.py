"""Scenes of a world: their description and possible events.

A scene holds every number that the renderer, the captions and the evaluation need; nothing is sampled later. Lengths
on the picture are fractions of its width or height, angles are in degrees, times in frames.
"""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from longtake.core.errors import InputError
from longtake.core.shapes import Span, Stride
from longtake.worlds.assets import Subject, View, place_named, subject_named
from longtake.worlds.config import FORMAT, WorldConfig
from longtake.worlds.splits import (
    VERTICAL,
    HeldOut,
    Split,
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
_SWIMS = frozenset({"swims", "paddles"})
RAMP_FRAMES = 8  # frames that an event takes to complete


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
    phase: float  # phase of the gait, in [0, 2)


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


def _swims(subject: Subject) -> bool:
    return not _SWIMS.isdisjoint(subject.verbs.get("floats", ()))


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


def distance(scene: Scene, actor_idx: int, frame: int) -> float:
    """Distance that an actor has covered by `frame`, in seconds at full speed, forwards positive."""
    return distances(scene, actor_idx, range(frame, frame + 1))[0]


def distances(scene: Scene, actor_idx: int, frames: range) -> list[float]:
    """Values of `distance` at each of `frames`."""
    pace = 1.0 if scene.actors[actor_idx].moving else 0.0
    # The pace changes from the last frame before the event on: like latent frames, ramps end 4 or 8 frames after it.
    changes = [(event.frame - 1, change) for event, change in pace_changes(scene, actor_idx)]
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

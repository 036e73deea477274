"""Sampling of scenes: everything that happens in a clip, as a pure function of world, seed and split."""

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import TypeVar

from longtake.core.errors import ConfigError
from longtake.core.noise import rng_for
from longtake.core.shapes import Stride
from longtake.worlds.assets import Place, View, place_named, subject_named
from longtake.worlds.config import WorldConfig
from longtake.worlds.motion import phases_a_width
from longtake.worlds.scenes import (
    LATERAL,
    Actor,
    Camera,
    Scene,
    distances,
    is_lateral,
    possible_events,
)
from longtake.worlds.splits import VERTICAL, Split, company_in, feasible_scenes, support_for

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

_START = 0.2  # distance from the middle, in picture widths, at which subjects of a grid world begin to move sideways

_T = TypeVar("_T")


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
    return _centre_paths(draw, config, scene)


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
    fixed = config.nearness
    drawn = draw.random if fixed is None else lambda: fixed
    near = drawn()
    low, high = config.rows[("small", "medium", "large").index(subject.size)]
    scale = (low + (high - low) * (0.7 * near + 0.3 * drawn())) / 96
    height = min(scale * math.sqrt(subject.height_px / subject.width_px), 0.62)
    lateral = is_lateral(motion, subject)
    sided = lateral or subject.facing != "front"
    speed, latent_s = 0.0, Stride().time / config.fps
    if lateral:
        speed = _snapped(draw.uniform(*_SPEEDS[motion]), config, config.size.width * latent_s)
    elif motion in VERTICAL:
        speed = _snapped(draw.uniform(0.12, 0.18), config, config.size.height * latent_s, 0.5)
    if support == "air":
        # Rising subjects begin low and falling ones high, so that they stay visible for a clip.
        y = {"rises": 0.72, "falls": 0.22}.get(motion, 0.3 + 0.2 * drawn())
        y += 0.1 * drawn() - 0.05
        if motion not in VERTICAL:
            y = max(y, height / 2 + 0.06)
    else:
        y = _contact_row(config, view, camera, near, height)
    return Actor(
        subject=subject_id,
        motion=motion,
        direction=_pick(draw, ("left", "right") if lateral or config.grid is None else ("right",)) if sided else None,
        moving=True,
        support=support,
        height=round(height, 4),
        x=round(draw.uniform(0.36, 0.64), 4),
        y=round(_snapped(y, config, config.size.height, 2), 4),
        speed=round(speed, 4),
        phase=round(draw.random(), 4),
    )


def _snapped(value: float, config: WorldConfig, px: float, cells: float = 1) -> float:
    """Round a `value` in units of `px` pixels to a multiple of `cells` of the world's grid, but not to 0."""
    if config.grid is None:
        return value
    step = cells * config.grid / px
    return max(1, round(value / step)) * step


def _locked(actor: Actor) -> Actor:
    """Derive the phase of an actor's gait from its position: where it is on its path, it has one pose.

    Hops and bounces must not land at the very end of a latent frame, where the pose would jump: hence the offset.
    """
    sign = -1.0 if actor.direction == "left" else 1.0
    travelled = sign * actor.x if is_lateral(actor.motion, subject_named(actor.subject)) else 0.0
    offset = 0.0 if actor.motion == "rolls" else 0.125
    return replace(actor, phase=round((offset + travelled * phases_a_width(actor)) % 2, 4))


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
        first = replace(scene.actors[0], moving=False)
        if config.grid is not None:
            first = replace(first, direction="right")
        scene = replace(scene, actors=(first, *scene.actors[1:]))
    return scene.with_events((kind, chunk_idx))


def _centre_paths(draw: Random, config: WorldConfig, scene: Scene) -> Scene:
    """Place every actor so that its path over the first seconds stays inside the picture."""
    frames = range(0, min(scene.num_frames, 45), 4)
    actors = []
    for idx, actor in enumerate(scene.actors):
        lateral = is_lateral(actor.motion, subject_named(actor.subject))
        sides = (0.5, 0.5) if len(scene.actors) == 1 else ((0.3, 0.7), (0.7, 0.3))[idx]
        side = sides[0] if actor.speed == 0 or actor.motion in VERTICAL else 0.5
        sign = 1.0 if actor.direction == "right" else -1.0
        if config.grid is not None:
            x = 1 - actors[0].x if idx else (0.5 - sign * _START if lateral else side)
            actors.append(_locked(replace(actor, x=round(_snapped(x, config, config.size.width, 2), 4))))
            continue
        if lateral:
            path = [sign * actor.speed * gone for gone in distances(scene, idx, frames)]
            x = side - (min(path) + max(path)) / 2 + draw.uniform(-0.08, 0.08)
        else:
            x = side + draw.uniform(-0.12, 0.12)
            if scene.camera.kind.startswith("pan"):  # a subject at rest drifts against the pan
                drift = 0.4 * scene.camera.travel / scene.camera.field
                x += drift if scene.camera.kind == "pan_right" else -drift
        actors.append(replace(actor, x=round(x, 4)))
    return replace(scene, actors=tuple(actors))

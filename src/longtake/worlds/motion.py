"""Poses of subjects and directions of the camera in every frame.

They are in closed form, so that any frame can be computed by itself. Units are pixels, radians and seconds unless
stated otherwise; rows grow downwards.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.worlds.assets import MARGIN_PX, Subject, subject_named
from longtake.worlds.scenes import (
    RAMP_FRAMES,
    VERTICAL,
    Actor,
    Scene,
    distances,
    is_lateral,
    pace_changes,
)

_STRIDES_A_WIDTH = {"walks": 10.0, "runs": 10.0, "hops": 10.0, "drives": 20.0}
_ROUND_KINDS = frozenset({"ball", "fruit", "sky", "vegetable"})
LARGEST_GROWTH = 1.15  # largest size of a subject that grows or shrinks, relative to `Actor.height`
_WRAP_PX = 16  # the largest step of a world's grid
_THINNEST = 0.12  # smallest fraction of its width to which a turning subject is foreshortened


@dataclass(frozen=True, kw_only=True, slots=True)
class Pose:
    """Pose of a subject in every frame."""

    x: Float[Tensor, " f"]  # column of the centre
    y: Float[Tensor, " f"]  # row of the centre
    half_w: Float[Tensor, " f"]  # half the width, negative if mirrored
    half_h: Float[Tensor, " f"]  # half the height
    angle: Float[Tensor, " f"]  # clockwise rotation on the screen
    ground_y: Float[Tensor, " f"]  # row of the ground contact or of the waterline
    lift: Float[Tensor, " f"]  # height above `ground_y`, as a fraction of the subject's height


@dataclass(frozen=True, kw_only=True, slots=True)
class _Clock:
    """Time and progress of a subject in every frame."""

    seconds: Float[Tensor, " f"]  # time since the scene began
    gone: Float[Tensor, " f"]  # distance covered, in seconds at full pace, forwards positive
    effort: Float[Tensor, " f"]  # pace, from 0 at rest to 1 at full pace
    heading: Float[Tensor, " f"]  # 1 in the initial direction, -1 after turning around


@dataclass(frozen=True, kw_only=True, slots=True)
class _Gait:
    """Deformation of a subject by its motion, apart from its path."""

    lift: Float[Tensor, " f"] | float = 0.0  # height above the ground, in heights of the subject
    sway: Float[Tensor, " f"] | float = 0.0  # downward displacement, in heights of the picture
    angle: Float[Tensor, " f"] | float = 0.0  # clockwise rotation on the screen
    squash: Float[Tensor, " f"] | float = 1.0  # factor on the height; the width is scaled by 2 - squash
    turn: Float[Tensor, " f"] | float = 1.0  # cosine of a rotation about the vertical axis
    growth: Float[Tensor, " f"] | float = 1.0  # factor on the size


def phases_a_width(actor: Actor) -> float:
    """Change of `Actor.phase` that a path of one picture width replaces, for an actor at full pace in a still picture.

    Phases of steps are in strides, those of rolling subjects in picture widths, all others in seconds.
    """
    if actor.motion == "rolls":
        return 1.0
    if actor.motion in _STRIDES_A_WIDTH and (actor.support == "ground" or actor.motion == "hops"):
        return _STRIDES_A_WIDTH[actor.motion]
    return 1 / actor.speed if actor.speed else 0.0


def frame_seconds(scene: Scene, frames: range, device: str) -> Float[Tensor, " f"]:
    """Time of every frame in seconds since the scene began."""
    numbers = torch.arange(frames.start, frames.stop, frames.step, device=device)
    return numbers.float() / scene.fps


def camera_path(scene: Scene, frames: range, device: str) -> tuple[Float[Tensor, " f"], Float[Tensor, " f"]]:
    """Rotation of the camera to the right in degrees, and magnification, at every frame."""
    camera = scene.camera
    seconds = frame_seconds(scene, frames, device)
    gone = torch.zeros_like(seconds)
    if camera.travel > 0:
        gone = camera.travel * torch.tanh(seconds * camera.rate / camera.travel * 1.3)
    if camera.kind == "push_in":
        return torch.zeros_like(gone), 2.0**gone
    return (gone if camera.kind == "pan_right" else -gone), torch.ones_like(gone)


def focal_px(scene: Scene) -> float:
    """Focal length in pixels at frame 0."""
    return scene.width_px / 2 / math.tan(math.radians(scene.camera.field / 2))


def pose_at(
    scene: Scene,
    actor_idx: int,
    frames: range,
    yaw: Float[Tensor, " f"],
    zoom: Float[Tensor, " f"],
) -> Pose:
    """Pose of one subject in every frame, for a camera rotated by `yaw` degrees and magnified by `zoom`."""
    actor = scene.actors[actor_idx]
    subject = subject_named(actor.subject)
    height, width = scene.height_px, scene.width_px
    clock = _clock(scene, actor_idx, frames, str(yaw.device))
    gait = _gait(scene, actor, subject, clock)
    full_h = actor.height * height
    full_w = full_h * subject.width_px / subject.height_px
    sign = -1.0 if actor.direction == "left" else 1.0
    lateral = is_lateral(actor.motion, subject)

    # The position for a camera that never moves comes first, then its projection for this camera.
    zero = torch.zeros_like(clock.gone)
    x = actor.x * width + (sign * actor.speed * clock.gone * width if lateral else zero)
    y = actor.y * height + zero
    if actor.motion in VERTICAL:
        step = -1.0 if actor.motion == "rises" else 1.0
        y = _wrap(y + step * actor.speed * height * clock.seconds, height, full_h / 2 + 2)
    x = x - focal_px(scene) * torch.tan(torch.deg2rad(yaw))
    x = width / 2 + (x - width / 2) * zoom
    if lateral:
        x = _wrap(x, width, full_w * zoom / 2 + 4)
    spot_y = height / 2 + (y - height / 2) * zoom
    scale = zoom * gait.growth

    stand_h, stand_w = full_h * scale * gait.squash, full_w * scale * (2 - gait.squash)
    centre_y = spot_y + gait.sway * height * zoom - gait.lift * full_h * scale
    margin = MARGIN_PX / subject.height_px
    if actor.support == "ground":
        centre_y = centre_y - stand_h * (0.5 - margin)
    elif actor.support == "water":
        centre_y = centre_y - stand_h * (0.42 - margin)  # 0.42 instead of 0.5, since the lowest part is under water

    turn, flip = gait.turn, 1.0
    if subject.facing != "front":
        flip = 1.0 if subject.facing == actor.direction else -1.0
    elif subject.heading is not None:
        flip = sign  # a subject drawn nose up counts as facing right
    if subject.facing != "front" or subject.heading is not None:
        turn = turn * torch.sin(clock.heading * math.pi / 2)
    turn = turn + zero
    turn = torch.where(turn.abs() < _THINNEST, torch.where(turn < 0, -_THINNEST, _THINNEST), turn)
    angle = gait.angle + zero
    if actor.motion != "rolls":  # after turning around, a subject leans the other way
        angle = angle * torch.where(clock.heading < 0, -1.0, 1.0)
    return Pose(
        x=x,
        y=centre_y,
        half_w=flip * turn * stand_w / 2,
        half_h=stand_h / 2,
        angle=angle,
        ground_y=spot_y,
        lift=gait.lift + zero,
    )


def _gait(scene: Scene, actor: Actor, subject: Subject, clock: _Clock) -> _Gait:
    sign = -1.0 if actor.direction == "left" else 1.0
    beat = 2 * math.pi * (clock.seconds + actor.phase)
    if actor.support != "ground":
        wet = actor.support == "water"
        return _afloat(actor, clock, beat) if wet else _aloft(actor, subject, beat, sign)
    strides = clock.gone * actor.speed * _STRIDES_A_WIDTH.get(actor.motion, 6.0) + actor.phase
    stride = 2 * math.pi * strides
    match actor.motion:
        case "walks" | "runs":
            effort = clock.effort * (1.6 if actor.motion == "runs" else 1.0)
            return _Gait(
                lift=effort * 0.035 * torch.sin(stride).abs(),
                angle=effort * 0.045 * torch.sin(stride),
                squash=1 - effort * 0.03 * torch.cos(2 * stride),
            )
        case "hops":
            hop = torch.sin(stride / 2).abs()
            falling = torch.cos(stride / 2) * torch.sign(torch.sin(stride / 2))
            return _Gait(
                lift=clock.effort * min(0.4, 0.13 / actor.height) * hop,
                angle=clock.effort * -0.12 * falling * sign,
                squash=1 - clock.effort * 0.16 * (1 - hop) ** 4,
            )
        case "drives":
            return _Gait(lift=clock.effort * 0.012 * torch.sin(stride).abs())
        case "rolls":  # rotation without slipping
            across = scene.width_px / scene.height_px / (actor.height / 2)  # width of the picture in radii
            return _Gait(angle=sign * (clock.gone * actor.speed + actor.phase) * across)
        case _:
            return _in_place(actor, subject, clock.seconds, beat)


def _afloat(actor: Actor, clock: _Clock, beat: Float[Tensor, " f"]) -> _Gait:
    gait = _Gait(sway=0.012 * torch.sin(beat), angle=0.035 * torch.sin(beat + 1.0))
    if actor.motion == "hops":
        stride = math.pi * (clock.gone * actor.speed * _STRIDES_A_WIDTH["hops"] + actor.phase)
        lift = clock.effort * 0.5 * torch.sin(stride).abs()
        return _Gait(lift=lift, angle=gait.angle)
    if actor.motion in {"grows", "shrinks"}:
        return _Gait(sway=gait.sway, angle=gait.angle, growth=_growth(actor, clock.seconds))
    if actor.motion == "spins":
        return _Gait(sway=gait.sway, turn=torch.cos(beat * 0.5))
    return gait


def _aloft(actor: Actor, subject: Subject, beat: Float[Tensor, " f"], sign: float) -> _Gait:
    nose = 0.0
    if actor.motion in {"flies", *VERTICAL} and subject.heading is not None:
        nose = _nose(actor, subject.heading, sign)
    match actor.motion:
        case "flies":
            flaps = 0.13 if subject.kind == "animal" and subject.size != "large" else 0.0
            return _Gait(
                sway=0.02 * torch.sin(beat),
                angle=0.05 * torch.cos(beat) * sign + nose,
                squash=1 - flaps * torch.sin(beat * 3),
            )
        case "floats":
            return _Gait(sway=0.03 * torch.sin(beat * 0.5), angle=0.06 * torch.sin(beat * 0.5))
        case "rises" | "falls":
            return _Gait(angle=0.04 * torch.sin(beat * 0.5) + nose)
        case _:
            return _in_place(actor, subject, beat / (2 * math.pi) - actor.phase, beat)


def _in_place(actor: Actor, subject: Subject, seconds: Float[Tensor, " f"], beat: Float[Tensor, " f"]) -> _Gait:
    match actor.motion:
        case "bounces":
            hop = torch.sin(beat * 0.5).abs()
            return _Gait(lift=hop * min(0.9, 0.3 / actor.height), squash=1 - 0.22 * (1 - hop) ** 6)
        case "spins" if subject.kind in _ROUND_KINDS or actor.support == "air":
            return _Gait(angle=beat * 0.5)
        case "spins":
            return _Gait(turn=torch.cos(beat * 0.5))
        case "grows" | "shrinks":
            return _Gait(growth=_growth(actor, seconds))
        case _:
            return _Gait()


def _growth(actor: Actor, seconds: Float[Tensor, " f"]) -> Float[Tensor, " f"]:
    progress = 1 - torch.exp(-seconds / 1.3)
    if actor.motion == "grows":
        return LARGEST_GROWTH - 0.6 * (1 - progress)
    return LARGEST_GROWTH - 0.65 * progress


def _nose(actor: Actor, heading: float, sign: float) -> float:
    """Rotation in radians that points a nose, stored `heading` degrees above the horizontal, along the motion."""
    if actor.motion == "flies":
        wanted = 10.0
    elif actor.motion == "rises":
        wanted = max(heading, 45.0)
    else:
        wanted = heading if heading in {90.0, -45.0} else -20.0
    return -math.radians(wanted - heading) * (sign if actor.direction is not None else 1.0)


def _clock(scene: Scene, actor_idx: int, frames: range, device: str) -> _Clock:
    gone = torch.tensor(distances(scene, actor_idx, frames), device=device)
    pace = torch.full_like(gone, 1.0 if scene.actors[actor_idx].moving else 0.0)
    for event, change in pace_changes(scene, actor_idx):
        pace = pace + change * _linear(frames, event.frame, device)
    heading = torch.ones_like(gone)
    if actor_idx == 0:
        for event in scene.events:
            if event.kind == "turns_around":
                heading = heading * (1 - 2 * _linear(frames, event.frame, device))
    seconds = frame_seconds(scene, frames, device)
    return _Clock(seconds=seconds, gone=gone, effort=pace.abs(), heading=heading)


def _linear(frames: range, start: int, device: str) -> Float[Tensor, " f"]:
    """Linear ramp over RAMP_FRAMES frames, 0 before frame `start`, above 0 from `start` on, finally 1."""
    since = torch.arange(frames.start, frames.stop, frames.step, device=device) - start + 1
    return (since.float() / RAMP_FRAMES).clamp(0, 1)


def _wrap(position: Float[Tensor, " f"], length: float, margin: Float[Tensor, " f"] | float) -> Float[Tensor, " f"]:
    """Wrap positions around, so that a subject leaving at one edge enters at the other, `margin` outside of both.

    The margin is rounded up to whole steps of a world's grid: what comes back has the poses that it had before.
    """
    margin = _WRAP_PX * torch.ceil(torch.as_tensor(margin) / _WRAP_PX)
    return (position + margin) % (length + 2 * margin) - margin

"""Rendering of scenes: panoramas through a pinhole camera, with cut-outs that move in them.

Every frame is a pure function of (scene, frame index), so any range of frames can be rendered by itself, and clips
may have any length. The background is drawn once for each distinct state of camera, time and weather, and a subject
only inside its bounding box. Colours are sRGB in [0, 1] until the final conversion to bytes.
"""

import math
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from longtake.core.errors import InputError
from longtake.worlds.assets import BASIC_COLOURS, cutout, panorama, place_named, subject_named
from longtake.worlds.motion import LARGEST_GROWTH, Pose, camera_path, focal_px, pose_at
from longtake.worlds.sampling import sample_scene
from longtake.worlds.scenes import Actor, Scene, WorldConfig
from longtake.worlds.weather import (
    Air,
    air_at,
    column,
    draw_fall,
    fog_colour,
    grade,
    in_air,
    rgb_column,
)

Look = Literal["full", "plain"]
_SHADOWS = {"hard": 0.5, "soft": 0.4, "faint": 0.28}


def render(
    scenes: Sequence[Scene],
    look: Look = "full",
    device: str | torch.device = "cpu",
    frames: range | None = None,
) -> UInt8[Tensor, "b f h w c"]:
    """Render scenes to frames, RGB 0..255.

    Args:
        scenes: scenes of equal size and length.
        look: "full" as a camera sees it; "plain" in flat colours on a checkerboard, with the same
            silhouettes in the same positions.
        device: device of the computation and of the result.
        frames: range of frames, counted from the scene's start; None: the scene's own length.

    Raises:
        InputError: there are no scenes, or they differ in size or length.
    """
    if not scenes:
        raise InputError("render needs at least one scene, got none")
    shapes = {(s.num_frames if frames is None else 0, s.height_px, s.width_px) for s in scenes}
    if len(shapes) > 1:
        raise InputError(f"scenes rendered together must share length and size, got {sorted(shapes)}")
    wanted = range(scenes[0].num_frames) if frames is None else frames
    draw = _draw_full if look == "full" else _draw_plain
    with torch.inference_mode():
        clips = [_to_bytes(draw(scene, wanted, str(device))) for scene in scenes]
        return torch.stack(clips)


def silhouettes(
    scenes: Sequence[Scene], device: str | torch.device = "cpu", frames: range | None = None
) -> UInt8[Tensor, "b f h w"]:
    """Coverage of every pixel by subjects, 0..255, in the frames that `render` would draw."""
    wanted = range(scenes[0].num_frames) if frames is None else frames
    with torch.inference_mode():
        return torch.stack([_to_bytes(_draw_cover(scene, wanted, str(device)))[..., 0] for scene in scenes])


def clips_per_second(config: WorldConfig, num_clips: int = 20, look: Look = "full") -> float:
    """Measure the rendering speed on sampled clips, with all assets decoded beforehand."""
    scenes = [sample_scene(config, seed) for seed in range(num_clips)]
    for scene in scenes:
        render([scene], look, frames=range(1))
    start = time.perf_counter()
    for scene in scenes:
        render([scene], look)
    return num_clips / (time.perf_counter() - start)


def _to_bytes(pictures: Float[Tensor, "f c h w"]) -> UInt8[Tensor, "f h w c"]:
    return pictures.clamp_(0, 1).mul_(255).add_(0.5).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _draw_full(scene: Scene, frames: range, device: str) -> Float[Tensor, "f c h w"]:
    air = air_at(scene, frames, device)
    yaw, zoom = camera_path(scene, frames, device)
    keys = torch.stack([yaw, zoom, air.night, air.sunset, air.rain, air.snow, air.fog], dim=1)
    distinct, inverse = torch.unique(keys, dim=0, return_inverse=True)
    first = torch.full((len(distinct),), len(frames), device=device, dtype=torch.long)
    order = torch.arange(len(frames), device=device)
    first = first.scatter_reduce(0, inverse, order, reduce="amin")
    horizon = _horizon_rows(scene, zoom[first])
    backdrop = _backdrop(scene, yaw[first], zoom[first], device)
    wet = scene.view.surface == "water"
    backdrop = in_air(backdrop, air.at(first), horizon, snow_lies=not wet)
    pictures = backdrop[inverse]
    for idx in _back_to_front(scene):
        _paste_actor(pictures, scene, idx, frames, yaw, zoom, air, flat=False)
    draw_fall(pictures, scene, frames, air)
    return pictures


def _draw_plain(scene: Scene, frames: range, device: str) -> Float[Tensor, "f c h w"]:
    yaw, zoom = camera_path(scene, frames, device)
    pictures = _checkerboard(scene, yaw, zoom, device)
    none = torch.zeros(len(frames), device=device)
    air = Air(night=none, sunset=none, rain=none, snow=none, fog=none, dark=none)
    for idx in _back_to_front(scene):
        _paste_actor(pictures, scene, idx, frames, yaw, zoom, air, flat=True)
    return pictures


def _draw_cover(scene: Scene, frames: range, device: str) -> Float[Tensor, "f c h w"]:
    """Draw subjects in white on black."""
    yaw, zoom = camera_path(scene, frames, device)
    cover = torch.zeros(len(frames), 1, scene.height_px, scene.width_px, device=device)
    for idx in range(len(scene.actors)):
        _, alpha, left, top = _drawn_actor(scene, idx, frames, yaw, zoom, device, flat=True)
        _paste(cover, alpha, alpha, left, top)
    return cover


def _back_to_front(scene: Scene) -> list[int]:
    def depth(idx: int) -> float:
        actor = scene.actors[idx]
        return actor.y if actor.support != "air" else 2.0

    return sorted(range(len(scene.actors)), key=depth)


def _horizon_rows(scene: Scene, zoom: Float[Tensor, " f"]) -> Float[Tensor, " f"]:
    pitch = math.radians(scene.camera.pitch)
    return scene.height_px / 2 + focal_px(scene) * zoom * math.tan(pitch)


def _rays(
    scene: Scene, zoom: Float[Tensor, " f"], device: str
) -> tuple[Float[Tensor, "f h w"], Float[Tensor, "f h w"], Float[Tensor, "f h w"]]:
    """Right, up and forward components of every pixel's ray, with the camera's pitch but not its yaw applied."""
    x = torch.arange(scene.width_px, device=device).float() + 0.5 - scene.width_px / 2
    y = scene.height_px / 2 - torch.arange(scene.height_px, device=device).float() - 0.5
    forward = (focal_px(scene) * zoom).view(-1, 1, 1)
    pitch = math.radians(scene.camera.pitch)
    up = y.view(1, -1, 1) * math.cos(pitch) + forward * math.sin(pitch)
    ahead = forward * math.cos(pitch) - y.view(1, -1, 1) * math.sin(pitch)
    shape = (len(zoom), scene.height_px, scene.width_px)
    return x.view(1, 1, -1).expand(shape), up.expand(shape), ahead.expand(shape)


def _backdrop(
    scene: Scene, yaw: Float[Tensor, " f"], zoom: Float[Tensor, " f"], device: str
) -> Float[Tensor, "f c h w"]:
    """Draw the place as seen by the camera."""
    picture = panorama(scene.place, device)
    one_zoom = bool((zoom == zoom[0]).all())
    right, up, ahead = _rays(scene, zoom[:1] if one_zoom else zoom, device)
    azimuth = torch.rad2deg(torch.atan2(right, ahead)) + scene.camera.azimuth
    elevation = torch.rad2deg(torch.atan2(up, (right * right + ahead * ahead).sqrt()))
    window = place_named(scene.place).window
    (left, right_edge), (bottom, top) = window.azimuth, window.elevation
    azimuth = azimuth + yaw.view(-1, 1, 1) - left
    columns = width = picture.shape[2]
    if window.is_whole:
        azimuth, columns = azimuth % 360, width - 1  # the last column repeats the first
    grid_x = azimuth * (2 * columns / (right_edge - left) / width) - 1
    grid_y = ((top - elevation) * (2 / (top - bottom)) - 1).expand_as(grid_x)
    grid = torch.stack([grid_x, grid_y], dim=-1)
    num = len(grid)
    sampled = F.grid_sample(
        picture[None],
        grid.reshape(1, num * scene.height_px, scene.width_px, 2),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    return sampled.view(3, num, scene.height_px, scene.width_px).transpose(0, 1)


def _checkerboard(
    scene: Scene, yaw: Float[Tensor, " f"], zoom: Float[Tensor, " f"], device: str
) -> Float[Tensor, "f c h w"]:
    """Draw a flat sky over an infinite checkerboard, as seen by the same camera."""
    right, up, ahead = _rays(scene, zoom, device)
    drop = (-up).clamp_min(1e-3)
    turn = torch.deg2rad(yaw).view(-1, 1, 1)
    x = (right * torch.cos(turn) + ahead * torch.sin(turn)) / drop
    z = (ahead * torch.cos(turn) - right * torch.sin(turn)) / drop
    parity = ((torch.floor(x) + torch.floor(z)) % 2)[:, None]
    fade = (1 - ((ahead / drop) - 6) / 14).clamp(0, 1)[:, None]  # far squares blend into one grey
    value = 0.5 + (parity - 0.5) * 0.36 * fade
    ground = value * rgb_column((1.0, 1.0, 1.0), value)
    sky = rgb_column((0.62, 0.77, 0.93), value)
    return torch.where((up > 0)[:, None], sky, ground)


@lru_cache(maxsize=512)
def _sprite(subject_id: str, place_id: str, rows: int, flat: bool, device: str) -> Float[Tensor, "1 c h w"]:
    """Premultiplied cut-out at about the size it is shown, tinted by the place's light or, if `flat`, in one colour."""
    subject = subject_named(subject_id)
    rgba = cutout(subject_id, device).rgba
    if flat:
        colour = torch.tensor(BASIC_COLOURS[subject.colours[0]], device=device).view(3, 1, 1)
        rgba = torch.cat([colour * rgba[3:], rgba[3:]])
    else:
        tint = torch.tensor(place_named(place_id).subject_tint, device=device).view(3, 1, 1)
        rgba = torch.cat([torch.minimum(rgba[:3] * tint ** (1 / 2.2), rgba[3:]), rgba[3:]])
    if rows >= rgba.shape[1]:
        return rgba[None]
    cols = max(2, round(rows * rgba.shape[2] / rgba.shape[1]))
    return F.interpolate(rgba[None], size=(rows, cols), mode="bilinear", antialias=True, align_corners=False).clamp(
        0, 1
    )


def _paste_actor(
    pictures: Float[Tensor, "f c h w"],
    scene: Scene,
    actor_idx: int,
    frames: range,
    yaw: Float[Tensor, " f"],
    zoom: Float[Tensor, " f"],
    air: Air,
    *,
    flat: bool,
) -> None:
    """Draw one subject with its shadow or reflection into the pictures, in place."""
    actor = scene.actors[actor_idx]
    if actor.support == "ground":
        _paste_shadow(pictures, scene, actor, pose_at(scene, actor_idx, frames, yaw, zoom), air)
    colour, alpha, left, top = _drawn_actor(scene, actor_idx, frames, yaw, zoom, str(pictures.device), flat=flat)
    if not flat:
        colour = grade(colour, air, strength=0.72)
        veil = 0.42 * air.fog + 0.12 * air.rain + 0.12 * air.snow
        if bool((veil > 0).any()):
            fog = fog_colour(air, colour) * alpha
            colour = colour + column(veil) * (fog - colour)
    _paste(pictures, colour, alpha, left, top)


def _drawn_actor(
    scene: Scene,
    actor_idx: int,
    frames: range,
    yaw: Float[Tensor, " f"],
    zoom: Float[Tensor, " f"],
    device: str,
    *,
    flat: bool,
) -> tuple[Float[Tensor, "f c u v"], Float[Tensor, "f 1 u v"], Float[Tensor, " f"], Float[Tensor, " f"]]:
    """Draw a subject and its reflection in a box per frame, before the effects of time and weather.

    Returns:
        Premultiplied colour, alpha, and the left and top edges of the boxes.
    """
    actor = scene.actors[actor_idx]
    pose = pose_at(scene, actor_idx, frames, yaw, zoom)
    # The resolution depends on the scene only, not on these frames, so that any range of frames is drawn alike.
    most = actor.height * scene.height_px * LARGEST_GROWTH
    most *= 2**scene.camera.travel if scene.camera.kind == "push_in" else 1
    rows = 4 * math.ceil(1.05 * most / 4)
    sprite = _sprite(actor.subject, scene.place, rows, flat, device)
    wet = actor.support == "water"
    reach = (pose.half_w**2 + pose.half_h**2).sqrt().max()
    if wet:
        reach = reach * 1.25
    side = 2 * math.ceil(float(reach)) + 2
    left = torch.floor(pose.x - side / 2)
    top = torch.floor(pose.y - side / 2)
    steps = torch.arange(side, device=device).float() + 0.5
    dx = (left - pose.x)[:, None, None] + steps.view(1, 1, -1)
    dy = (top - pose.y)[:, None, None] + steps.view(1, -1, 1)
    below = torch.zeros_like(dy)
    if wet:  # below the waterline, the subject's reflection is sampled, vertically compressed
        below = dy - (pose.ground_y - pose.y)[:, None, None]
        dy = torch.where(below > 0, dy - below * 2.5, dy)
        ripple = 0.7 * torch.sin(below * 1.9 + 2.2 * pose.x[:, None, None] * 0.2)
        dx = dx + torch.where(below > 0, ripple, torch.zeros_like(ripple))
    cos, sin = (fn(pose.angle)[:, None, None] for fn in (torch.cos, torch.sin))
    u = (dx * cos + dy * sin) / pose.half_w[:, None, None]
    v = (dy * cos - dx * sin) / pose.half_h[:, None, None]
    grid = torch.stack([u, v], dim=-1)
    num = len(frames)
    sampled = F.grid_sample(sprite, grid.view(1, num * side, side, 2), padding_mode="zeros", align_corners=False)
    sampled = sampled.view(4, num, side, side).transpose(0, 1)
    if wet:
        fade = torch.where(below > 0, 0.42 * torch.exp(-below.clamp_min(0) / (0.3 * most)), 1.0)
        sampled = sampled * fade[:, None]
    return sampled[:, :3], sampled[:, 3:], left, top


def _paste_shadow(pictures: Float[Tensor, "f c h w"], scene: Scene, actor: Actor, pose: Pose, air: Air) -> None:
    foot = cutout(actor.subject, "cpu")
    device = pictures.device
    spread = max(foot.foot_width, 0.4)
    upright = actor.motion not in {"rolls", "spins"}
    offset = (2 * foot.foot_centre - 1) * pose.half_w if upright else torch.zeros_like(pose.x)
    half_w = pose.half_w.abs() * spread * (1.12 - 0.25 * pose.lift.clamp(0, 1)) + 1.0
    half_h = 0.13 * pose.half_w.abs().clamp_min(8) + 0.8
    side_w = 2 * math.ceil(1.25 * float(half_w.max())) + 2
    side_h = 2 * math.ceil(1.25 * float(half_h.max())) + 2
    x, y = pose.x + offset, pose.ground_y - 0.15 * half_h
    left, top = torch.floor(x - side_w / 2), torch.floor(y - side_h / 2)
    dx = (left - x)[:, None] + torch.arange(side_w, device=device).float() + 0.5
    dy = (top - y)[:, None] + torch.arange(side_h, device=device).float() + 0.5
    squared = (dx / half_w[:, None])[:, None, :] ** 2 + (dy / half_h[:, None])[:, :, None] ** 2
    strength = _SHADOWS[place_named(scene.place).shadow] * (1 - 0.45 * pose.lift.clamp(0, 1.2))
    strength = strength * (1 - 0.4 * air.night) * (1 - 0.5 * air.fog) * (1 - 0.3 * air.rain)
    alpha = ((1.25 - squared.sqrt()) / 0.6).clamp(0, 1)[:, None] * column(strength)
    _paste(pictures, torch.zeros_like(alpha).expand(-1, 3, -1, -1), alpha, left, top)


def _paste(
    pictures: Float[Tensor, "f c h w"],
    colour: Float[Tensor, "f c u v"],
    alpha: Float[Tensor, "f 1 u v"],
    left: Float[Tensor, " f"],
    top: Float[Tensor, " f"],
) -> None:
    """Composite premultiplied boxes over the pictures, in place, clipped at the edges."""
    height, width = pictures.shape[2:]
    box_h, box_w = alpha.shape[2:]
    keep = 1 - alpha
    for idx, (x, y) in enumerate(zip(left.int().tolist(), top.int().tolist(), strict=True)):
        x0, x1, y0, y1 = max(x, 0), min(x + box_w, width), max(y, 0), min(y + box_h, height)
        if x0 >= x1 or y0 >= y1:
            continue
        inner = (idx, slice(None), slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))
        target = pictures[idx, :, y0:y1, x0:x1]
        target.mul_(keep[inner]).add_(colour[inner])

"""Effects of time of day and weather on pictures: colour grading, fog, rain and snow."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.core.noise import rng_for
from longtake.worlds.assets import place_named
from longtake.worlds.motion import frame_seconds
from longtake.worlds.scenes import RAMP_FRAMES, TIME_EVENTS, WEATHER_EVENTS, Scene

_LUMA = (0.299, 0.587, 0.114)
_TEXTURE_HW = (128, 192)  # height and width of a tile of snow or rain, in pixels of a 96-row picture
_FINE = 4  # texture samples per pixel, so that slow flakes move smoothly


@dataclass(frozen=True, kw_only=True, slots=True)
class Air:
    """Amounts of time and weather effects in every frame, in [0, 1]."""

    night: Float[Tensor, " f"]
    sunset: Float[Tensor, " f"]
    rain: Float[Tensor, " f"]
    snow: Float[Tensor, " f"]
    fog: Float[Tensor, " f"]
    dark: Float[Tensor, " f"]  # equal to `night`, or 1 if the place was photographed at night

    def at(self, idx: Tensor) -> "Air":
        """Amounts in the frames with indices `idx`."""
        return Air(
            night=self.night[idx],
            sunset=self.sunset[idx],
            rain=self.rain[idx],
            snow=self.snow[idx],
            fog=self.fog[idx],
            dark=self.dark[idx],
        )


def _ramp(frames: range, start: int, device: str) -> Float[Tensor, " f"]:
    """Smooth ramp over RAMP_FRAMES frames, 0 before frame `start`, above 0 from `start` on, finally 1."""
    since = torch.arange(frames.start, frames.stop, frames.step, device=device) - start + 1
    x = (since.float() / RAMP_FRAMES).clamp(0, 1)
    return x * x * (3 - 2 * x)


def air_at(scene: Scene, frames: range, device: str) -> Air:
    """Amounts of time and weather effects in every frame of a scene."""
    native = place_named(scene.place).time_of_day
    amounts = {k: torch.zeros(len(frames), device=device) for k in ("night", "sunset", "rain", "snow", "fog")}
    for now in (scene.time, scene.weather):
        if now in amounts and now != native:
            amounts[now].fill_(1.0)
    for event in scene.events:
        new = TIME_EVENTS.get(event.kind) or WEATHER_EVENTS.get(event.kind)
        if new is None:
            continue
        ramp = _ramp(frames, event.frame, device)
        group = ("night", "sunset") if event.kind in TIME_EVENTS else ("rain", "snow", "fog")
        for key in group:
            target = 1.0 if key == new and new != native else 0.0
            amounts[key] = amounts[key] + ramp * (target - amounts[key])
    dark = torch.ones_like(amounts["night"]) if native == "night" else amounts["night"]
    return Air(**amounts, dark=dark)


def column(values: Float[Tensor, " f"]) -> Float[Tensor, "f 1 1 1"]:
    """Reshape one number per frame to broadcast over pictures."""
    return values.view(-1, 1, 1, 1)


def rgb_column(rgb: tuple[float, float, float], like: Tensor) -> Float[Tensor, "1 c 1 1"]:
    """Reshape one colour to broadcast over pictures."""
    return torch.tensor(rgb, device=like.device).view(1, 3, 1, 1)


def _luma(pictures: Float[Tensor, "f c h w"]) -> Float[Tensor, "f 1 h w"]:
    r, g, b = _LUMA
    return pictures[:, 0:1] * r + pictures[:, 1:2] * g + pictures[:, 2:3] * b


def grade(pictures: Float[Tensor, "f c h w"], air: Air, strength: float = 1.0) -> Float[Tensor, "f c h w"]:
    """Grade pictures for overcast, sunset and night, in this order; linear, so it applies to premultiplied colours."""
    dull = 0.75 * air.rain + 0.5 * air.snow + 0.5 * air.fog
    if bool((dull > 0).any()):
        grey = _luma(pictures) * rgb_column((0.95, 0.98, 1.03), pictures)
        pictures = pictures + column(0.65 * dull) * (grey - pictures)
        pictures = pictures * column(1 - 0.22 * air.rain - 0.06 * air.snow)
    if bool((air.sunset > 0).any()):
        warm = pictures * rgb_column((1.12, 0.78, 0.54), pictures)
        pictures = pictures + column(strength * air.sunset) * (warm - pictures)
    if bool((air.night > 0).any()):
        gain = rgb_column((0.24, 0.33, 0.6), pictures)
        dark = (0.45 * pictures + 0.55 * _luma(pictures)) * gain
        pictures = pictures + column(strength * air.night) * (dark - pictures)
    return pictures


def fog_colour(air: Air, like: Tensor) -> Float[Tensor, "f c 1 1"]:
    """Colour of fog: pale by day, warm at sunset, dark blue at night."""
    day = rgb_column((0.8, 0.82, 0.84), like)
    warm = rgb_column((0.84, 0.7, 0.6), like)
    dark = rgb_column((0.2, 0.24, 0.34), like)
    colour = day + column(air.sunset) * (warm - day)
    return colour + column(air.dark) * (dark - colour)


def in_air(
    backdrop: Float[Tensor, "f c h w"], air: Air, horizon: Float[Tensor, " f"], *, snow_lies: bool
) -> Float[Tensor, "f c h w"]:
    """Apply time and weather to a backdrop.

    Args:
        backdrop: pictures of the place.
        air: amounts of the effects.
        horizon: row of the horizon in every frame.
        snow_lies: whether falling snow settles below the horizon.
    """
    height = backdrop.shape[2]
    rows = torch.arange(height, device=backdrop.device).float() + 0.5
    below = (rows[None] - horizon[:, None]) / height  # 0 at the horizon, grows downwards
    if snow_lies and bool((air.snow > 0).any()):
        lying = (below * 9).clamp(0, 1).view(len(below), 1, height, 1) * column(0.62 * air.snow)
        white = 0.5 + 0.5 * _luma(backdrop) * rgb_column((0.98, 1.0, 1.04), backdrop)
        backdrop = backdrop + lying * (white - backdrop)
    if bool((air.sunset > 0).any()):
        near = torch.exp(-((below * torch.where(below > 0, 9.0, 4.5)) ** 2))
        glow = near.view(len(below), 1, height, 1) * column(0.38 * air.sunset)
        backdrop = grade(backdrop, air)
        sun = rgb_column((1.0, 0.52, 0.22), backdrop) * (1 - 0.8 * column(air.night))
        backdrop = backdrop + glow * (sun - backdrop)
    else:
        backdrop = grade(backdrop, air)
    haze = 0.76 * air.fog + 0.28 * air.rain + 0.22 * air.snow
    if bool((haze > 0).any()):
        depth = torch.exp(-below.clamp_min(0) * 2.6).view(len(below), 1, height, 1)
        backdrop = backdrop + column(haze) * depth * (fog_colour(air, backdrop) - backdrop)
    return backdrop


@lru_cache(maxsize=64)
def _flakes(kind: str, layer: int, variant: int, device: str) -> Float[Tensor, "h w"]:
    """Opacity in [0, 1] of one depth layer of rain or snow, as a tile that repeats seamlessly."""
    height, width = (side * _FINE for side in _TEXTURE_HW)
    rng = rng_for(variant, (kind, layer))
    tile = torch.zeros(height, width)
    length = (7.0, 12.0, 12.0)[layer]
    if kind == "snow":
        num, radius, opacity = ((44, 0.8, 0.75), (24, 1.2, 0.85), (10, 1.7, 0.9))[layer]
        half_h = half_w = int((radius + 1.2) * _FINE)
    else:
        num, radius, opacity = ((110, 0.4, 0.22), (40, 0.5, 0.32))[layer]
        half_h, half_w = int(length * _FINE / 2) + _FINE, 2 * _FINE + int(length * _FINE * 0.08)
    spots = torch.rand(num, 3, generator=rng)
    dy = torch.arange(-half_h, half_h + 1).float() / _FINE
    dx = torch.arange(-half_w, half_w + 1).float() / _FINE
    for y, x, amount in spots.tolist():
        if kind == "snow":
            r = radius * (0.75 + 0.5 * amount)
            reach = (dy[:, None] ** 2 + dx[None] ** 2).sqrt()
            stamp = ((r + 0.5 - reach).clamp(0, 1)) * opacity
        else:
            slant = dx[None] - 0.12 * dy[:, None]
            body = (radius + 0.5 - slant.abs()).clamp(0, 1)
            stamp = body * (1 - dy.abs()[:, None] / (length / 2)).clamp(0, 1).sqrt() * opacity
        rows = (int(y * height) + torch.arange(-half_h, half_h + 1)) % height
        cols = (int(x * width) + torch.arange(-half_w, half_w + 1)) % width
        patch = tile[rows[:, None], cols[None]]
        tile[rows[:, None], cols[None]] = torch.maximum(patch, stamp)
    return tile.to(device)


def draw_fall(pictures: Float[Tensor, "f c h w"], scene: Scene, frames: range, air: Air) -> None:
    """Draw drops and flakes over the pictures, in place."""
    layers = []
    if bool((air.snow > 0).any()):
        layers += [("snow", i, fall, air.snow) for i, fall in enumerate((17.0, 29.0, 46.0))]
    if bool((air.rain > 0).any()):
        layers += [("rain", i, fall, air.rain) for i, fall in enumerate((190.0, 280.0))]
    if not layers:
        return
    device = str(pictures.device)
    num, _, height, width = pictures.shape
    seconds = frame_seconds(scene, frames, device)
    scale = height / 96
    tile_h, tile_w = (side * _FINE for side in _TEXTURE_HW)
    rows = torch.arange(height, device=device).float() / scale * _FINE
    cols = torch.arange(width, device=device).float() / scale * _FINE
    light = column(1 - 0.45 * air.dark)
    opacity = torch.zeros(num, height, width, device=device)
    for kind, layer, fall, amount in layers:
        tile = _flakes(kind, layer, scene.seed % 8, device)
        shift_y = (scene.seed // 8) % tile_h - seconds * fall * _FINE
        sway = torch.sin(seconds * (0.9 + 0.35 * layer) + layer) * (2.5 + 1.5 * layer)
        drift = sway - seconds * (3 + 2 * layer) if kind == "snow" else -seconds * fall * 0.12
        shift_x = (scene.seed // 4096) % tile_w + drift * _FINE
        y = (rows[None] + shift_y[:, None]).long() % tile_h
        x = (cols[None] + shift_x[:, None]).long() % tile_w
        flat = (y[:, :, None] * tile_w + x[:, None, :]).view(-1)
        drawn = tile.view(-1).index_select(0, flat).view(num, height, width)
        opacity = torch.maximum(opacity, drawn * amount.view(-1, 1, 1))
    white = 0.96 if layers[0][0] == "snow" else 0.86
    veil = opacity[:, None]
    pictures.add_(veil * (white * light - pictures))

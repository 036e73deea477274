"""The pictures the worlds are made of: photographed places and cut-out subjects.

Records come from two JSON files; pictures are decoded when first asked for and kept. Conventions of
angles, facings and sizes are written down in `assets/README.md`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from longtake.core.errors import ConfigError

_T = TypeVar("_T")

ASSETS = Path(__file__).parent / "assets"
MARGIN_PX = 2  # transparent border of every stored subject
BASIC_COLOURS: dict[str, tuple[float, float, float]] = {
    "black": (0.13, 0.13, 0.14),
    "white": (0.94, 0.94, 0.94),
    "gray": (0.55, 0.56, 0.58),
    "red": (0.85, 0.16, 0.16),
    "orange": (0.95, 0.55, 0.15),
    "yellow": (0.97, 0.83, 0.22),
    "green": (0.27, 0.65, 0.28),
    "blue": (0.22, 0.45, 0.85),
    "purple": (0.52, 0.30, 0.68),
    "pink": (0.95, 0.56, 0.70),
    "brown": (0.52, 0.34, 0.20),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """The part of the sphere that a place's picture shows. Angles are degrees, [from, to]."""

    azimuth: tuple[float, float] = (0.0, 360.0)
    elevation: tuple[float, float] = (-90.0, 90.0)

    @property
    def is_whole(self) -> bool:
        """Whether the picture goes all around: its left and right edges join."""
        return self.azimuth[1] - self.azimuth[0] == 360


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaceNames:
    """Short natural names of a place."""

    keyword: str  # for terse captions
    at: tuple[str, ...]  # where something is
    along: tuple[str, ...]  # where something goes
    over: tuple[str, ...]  # where something flies


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A range of directions in which a place looks good. Angles are degrees."""

    azimuth: tuple[float, float]
    pitch: tuple[float, float]
    surface: str | None  # "water", None (nothing to stand on), or the name of a ground
    ground_elevation: tuple[float, float] | None  # [near, far] of a contact point
    captions: tuple[str, ...]  # each begins with a preposition
    names: PlaceNames
    field: float  # horizontal

    @property
    def rest(self) -> str | None:
        """On what a subject may rest here: "ground", "water" or None."""
        return self.surface if self.surface in {None, "water"} else "ground"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A photographed place and its light."""

    id: str
    file: str
    setting: str  # "indoor" or "outdoor"
    time_of_day: str  # as photographed: day, dawn, sunrise, sunset or night
    window: Window
    views: tuple[View, ...]
    shadow: str  # "hard", "soft" or "faint"
    subject_tint: tuple[float, float, float]  # multiplies a subject's linear colour


@dataclass(frozen=True, kw_only=True, slots=True)
class Name:
    """One way to call a subject."""

    article: str
    noun: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A cut-out subject: what it is called, where it rests, what it can do."""

    id: str
    file: str
    height_px: int
    width_px: int
    names: tuple[Name, ...]  # the plainest first
    kind: str
    facing: str  # as stored: "left", "right" or "front"
    heading: float | None  # the nose's angle above the horizontal as stored, degrees
    supports: tuple[str, ...]  # of "ground", "water", "air"; the usual one first
    size: str  # "small", "medium" or "large"
    motions: tuple[str, ...]
    verbs: dict[str, tuple[str, ...]]  # motion -> other verbs that say it
    colours: tuple[str, ...]  # the larger first
    multicoloured: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Cutout:
    """A subject's picture, and where it touches the ground."""

    rgba: Float[Tensor, "c h w"]  # sRGB premultiplied by alpha, [0, 1]
    foot_centre: float  # of the contact, fraction of the width
    foot_width: float  # fraction of the width


def _pair(values: list[Any]) -> tuple[float, float]:
    return float(values[0]), float(values[1])


def _rgb(values: list[Any]) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def _view(place: dict[str, Any], view: dict[str, Any]) -> View:
    merged = {**place, **view}
    elevation = merged["ground_elevation"]
    return View(
        azimuth=_pair(view["azimuth"]),
        pitch=_pair(merged["pitch"]),
        surface=merged["surface"],
        ground_elevation=None if elevation is None else _pair(elevation),
        captions=tuple(merged["captions"]),
        names=PlaceNames(
            keyword=merged["keyword"], **{where: tuple(phrases) for where, phrases in merged["short"].items()}
        ),
        field=float(merged.get("field", 60)),
    )


def _window(place: dict[str, Any]) -> Window:
    if "window" not in place:
        return Window()
    return Window(azimuth=_pair(place["window"]["azimuth"]), elevation=_pair(place["window"]["elevation"]))


@cache
def places() -> dict[str, Place]:
    """Every place, by id."""
    records = json.loads((ASSETS / "places.json").read_text())["places"]
    return {
        r["id"]: Place(
            id=r["id"],
            file=r["file"],
            setting=r["setting"],
            time_of_day=r["time_of_day"],
            window=_window(r),
            views=tuple(_view(r, v) for v in r["views"]),
            shadow=r["light"]["shadow"],
            subject_tint=_rgb(r["light"]["subject_tint"]),
        )
        for r in records
    }


@cache
def subjects() -> dict[str, Subject]:
    """Every subject, by id."""
    records = json.loads((ASSETS / "subjects.json").read_text())["subjects"]
    return {
        r["id"]: Subject(
            id=r["id"],
            file=r["file"],
            width_px=r["size_px"][0],
            height_px=r["size_px"][1],
            names=tuple(Name(**n) for n in r["names"]),
            kind=r["kind"],
            facing=r["facing"],
            heading=None if r.get("heading") is None else float(r["heading"]),
            supports=tuple(r["supports"]),
            size=r["size"],
            motions=tuple(r["motions"]),
            verbs={motion: tuple(v) for motion, v in r.get("verbs", {}).items()},
            colours=tuple(r["colours"]),
            multicoloured=bool(r.get("multicoloured")),
        )
        for r in records
    }


def place_named(place_id: str) -> Place:
    """The place called `place_id`.

    Raises:
        ConfigError: there is none.
    """
    return _found(places(), place_id, "place")


def subject_named(subject_id: str) -> Subject:
    """The subject called `subject_id`.

    Raises:
        ConfigError: there is none.
    """
    return _found(subjects(), subject_id, "subject")


def _found(known: Mapping[str, _T], wanted: str, what: str) -> _T:
    if wanted not in known:
        raise ConfigError(f'no {what} is called "{wanted}"; there are {", ".join(sorted(known))}')
    return known[wanted]


@cache
def panorama(place_id: str, device: str = "cpu") -> Float[Tensor, "c h w"]:
    """The place's window of the sphere, equirectangular, sRGB in [0, 1].

    A picture that goes all around has one more column than stored: the first again, so that sampling across the seam
    is smooth.
    """
    place = place_named(place_id)
    picture = Image.open(ASSETS / place.file).convert("RGB")
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
    if place.window.is_whole:
        pixels = torch.cat([pixels, pixels[:, :, :1]], dim=2)
    return pixels.contiguous().to(device)


@cache
def cutout(subject_id: str, device: str = "cpu") -> Cutout:
    """The subject's picture as stored, facing as its record says."""
    picture = Image.open(ASSETS / subject_named(subject_id).file).convert("RGBA")
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
    alpha = pixels[3]
    foot_rows = alpha[-max(6, int(0.12 * alpha.shape[0])) :]
    columns = torch.nonzero(foot_rows.amax(0) > 0.5).flatten()
    left, right = (int(columns[0]), int(columns[-1]) + 1) if len(columns) else (0, alpha.shape[1])
    rgba = torch.cat([pixels[:3] * alpha, alpha[None]])
    return Cutout(
        rgba=rgba.to(device),
        foot_centre=(left + right) / 2 / alpha.shape[1],
        foot_width=(right - left) / alpha.shape[1],
    )

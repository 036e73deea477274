"""Pictures that worlds are rendered from: photographed places and cut-out subjects.

Records are read from two JSON files; pictures are decoded on first use and cached. `assets/README.md` defines the
conventions of angles, facings and sizes.
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
MARGIN_PX = 2  # width of the transparent border of every stored subject
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
    """Part of the sphere that a place's picture shows. Angles are degrees, [from, to]."""

    azimuth: tuple[float, float] = (0.0, 360.0)
    elevation: tuple[float, float] = (-90.0, 90.0)

    @property
    def is_whole(self) -> bool:
        """Whether the picture covers all directions, so that its left and right edges join."""
        return self.azimuth[1] - self.azimuth[0] == 360


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaceNames:
    """Short phrases for a place in captions."""

    keyword: str  # noun for terse captions
    at: tuple[str, ...]  # phrases for the position of a subject
    along: tuple[str, ...]  # phrases for a subject's path
    over: tuple[str, ...]  # phrases for a subject in the air


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """Range of camera directions that suit a place. Angles are degrees."""

    azimuth: tuple[float, float]
    pitch: tuple[float, float]
    surface: str | None  # "water", the name of a ground, or None if nothing can stand there
    ground_elevation: tuple[float, float] | None  # elevations of the nearest and the farthest contact point
    captions: tuple[str, ...]  # phrases for the place, each beginning with a preposition
    names: PlaceNames
    field: float  # horizontal field of view

    @property
    def rest(self) -> str | None:
        """Support that subjects can rest on: "ground", "water" or None."""
        return self.surface if self.surface in {None, "water"} else "ground"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Photographed place with its light."""

    id: str
    file: str
    setting: str  # "indoor" or "outdoor"
    time_of_day: str  # time of the photograph: day, dawn, sunrise, sunset or night
    window: Window
    views: tuple[View, ...]
    shadow: str  # "hard", "soft" or "faint"
    subject_tint: tuple[float, float, float]  # factor on a subject's linear colour


@dataclass(frozen=True, kw_only=True, slots=True)
class Name:
    """Noun for a subject, with its article."""

    article: str
    noun: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """Cut-out subject: its names, supports and motions."""

    id: str
    file: str
    height_px: int
    width_px: int
    names: tuple[Name, ...]  # names, the plainest first
    kind: str
    facing: str  # facing of the stored picture: "left", "right" or "front"
    heading: float | None  # angle of the nose above the horizontal in the stored picture, degrees
    supports: tuple[str, ...]  # possible supports among "ground", "water", "air", the usual one first
    size: str  # "small", "medium" or "large"
    motions: tuple[str, ...]
    verbs: dict[str, tuple[str, ...]]  # motion -> its synonyms
    colours: tuple[str, ...]  # colours in order of decreasing area
    multicoloured: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Cutout:
    """Picture of a subject, with the place where it touches the ground."""

    rgba: Float[Tensor, "c h w"]  # sRGB premultiplied by alpha, in [0, 1]
    foot_centre: float  # centre of the ground contact, as a fraction of the width
    foot_width: float  # width of the ground contact, as a fraction of the width


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
    """All places, by id."""
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
    """All subjects, by id."""
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
    """Place with id `place_id`.

    Raises:
        ConfigError: there is none.
    """
    return _found(places(), place_id, "place")


def subject_named(subject_id: str) -> Subject:
    """Subject with id `subject_id`.

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
    """Equirectangular picture of a place's window of the sphere, sRGB in [0, 1].

    A picture that covers all directions has its first column appended, so that sampling across the seam is smooth.
    """
    place = place_named(place_id)
    picture = Image.open(ASSETS / place.file).convert("RGB")
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
    if place.window.is_whole:
        pixels = torch.cat([pixels, pixels[:, :, :1]], dim=2)
    return pixels.contiguous().to(device)


@cache
def cutout(subject_id: str, device: str = "cpu") -> Cutout:
    """Cut-out of a subject, facing as its record says."""
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

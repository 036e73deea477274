"""Feasible combinations of subject, motion and view, and those held out from training."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

from longtake.core.errors import ConfigError
from longtake.worlds.assets import Subject, View, place_named, subject_named
from longtake.worlds.config import WorldConfig

Split = Literal["train", "held_out"]
VERTICAL = ("rises", "falls")


def _views(config: WorldConfig, place_id: str) -> list[tuple[int, View]]:
    """Views of a place that the world shows, with their indices."""
    chosen = [idx for place, idx in config.views if place == place_id]
    return [(idx, view) for idx, view in enumerate(place_named(place_id).views) if not chosen or idx in chosen]


def support_for(subject: Subject, motion: str, view: View) -> str | None:
    """Support of a subject during `motion` in a view ("ground", "water" or "air"); None if it is impossible."""
    return _support(subject.id, motion, view.rest)


@cache
def _support(subject_id: str, motion: str, here: str | None) -> str | None:
    subject = subject_named(subject_id)
    rests = here if here in subject.supports else None
    if motion not in subject.motions:
        return None
    aloft = "air" if "air" in subject.supports else None
    if motion in {"walks", "runs", "drives", "rolls", "hops"}:
        leaps = motion == "hops" and subject.supports[0] == "water"
        return rests if here == "ground" or leaps else None
    if motion == "sails":
        return rests if here == "water" else None
    if motion in {"flies", *VERTICAL}:
        return "air"
    if motion == "floats":
        swimmer = "water" in subject.supports and aloft is None
        return rests if here == "water" and rests else (None if swimmer else "air")
    return rests if motion == "stands still" else rests or aloft


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """Pairs that are held out from training."""

    subject_places: frozenset[tuple[str, str]]
    subject_motions: frozenset[tuple[str, str]]


@lru_cache(maxsize=16)
def held_out_pairs(config: WorldConfig) -> HeldOut:
    """Choose the pairs held out from training, deterministically and so that training covers every single element.

    Raises:
        ConfigError: a subject, place or motion would have no training scene.
    """
    surfaces = {p: {v.rest for _, v in _views(config, p)} for p in config.places}
    triples = {
        (s, p, m)
        for s in config.subjects
        for m in config.motions
        for p in config.places
        if any(_support(s, m, surface) for surface in surfaces[p])
    }
    places_of = _hold_out({(s, p) for s, p, _ in triples}, config.held_out_fraction)
    motions_of = _hold_out(
        {(s, m) for s, _, m in triples if m != subject_named(s).motions[0]},  # the usual motion is never held out
        config.held_out_fraction,
    )
    kept = [t for t in triples if (t[0], t[1]) not in places_of and (t[0], t[2]) not in motions_of]
    for axis, what in enumerate(("subject", "place", "motion")):
        missing = {t[axis] for t in triples} - {t[axis] for t in kept}
        if missing:
            raise ConfigError(
                f"holding out {config.held_out_fraction:.0%} of the pairs leaves no training scene for "
                f"the {what} {', '.join(sorted(missing))}; lower held_out_fraction"
            )
    return HeldOut(subject_places=places_of, subject_motions=motions_of)


@lru_cache(maxsize=16)
def feasible_scenes(config: WorldConfig, split: Split) -> dict[str, dict[str, dict[str, list[int]]]]:
    """Feasible scenes of a split: subject -> motion -> place -> indices of views."""
    pairs = held_out_pairs(config)
    views = [(p, idx, v.rest) for p in config.places for idx, v in _views(config, p)]
    found: dict[str, dict[str, dict[str, list[int]]]] = {}
    for s in (*config.subjects, *config.held_out_subjects):
        for m in config.motions:
            apart = s in config.held_out_subjects or (s, m) in pairs.subject_motions
            for p, idx, surface in views:
                held = apart or (s, p) in pairs.subject_places or (p, idx) in config.held_out_views
                if held == (split == "held_out") and _support(s, m, surface):
                    found.setdefault(s, {}).setdefault(m, {}).setdefault(p, []).append(idx)
    return found


@lru_cache(maxsize=256)
def company_in(config: WorldConfig, place_id: str, view_idx: int) -> dict[str, tuple[str, ...]]:
    """Subjects that training shows in a view, each with its motions."""
    found = {
        subject: tuple(m for m in sorted(by) if view_idx in by[m].get(place_id, ()))
        for subject, by in sorted(feasible_scenes(config, "train").items())
    }
    return {subject: motions for subject, motions in found.items() if motions}


def _hold_out(pairs: Iterable[tuple[str, str]], fraction: float) -> frozenset[tuple[str, str]]:
    def rank(pair: tuple[str, str]) -> bytes:
        return hashlib.sha256("|".join(pair).encode()).digest()

    pairs = sorted(pairs, key=rank)
    wanted = round(fraction * len(pairs))
    left: dict[tuple[int, str], int] = defaultdict(int)
    for pair in pairs:
        for end in enumerate(pair):
            left[end] += 1
    held: set[tuple[str, str]] = set()
    for pair in pairs:
        if len(held) == wanted:
            break
        if all(left[end] > 2 for end in enumerate(pair)):
            held.add(pair)
            for end in enumerate(pair):
                left[end] -= 1
    return frozenset(held)

"""Blind pairwise preferences: pairs of videos, votes on disk, and the models' strengths (Bradley and Terry 1952).

    P(a is preferred to b) = 1 / (1 + exp(s_b - s_a))

Voting is blind: pairs are numbered, sides are random, and models are not named. A tie is half a vote for each.
"""

import json
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

from longtake.core.errors import InputError

Choice = Literal["left", "right", "tie"]
SUFFIXES = (".mp4", ".webm")
ROUNDS = 200  # number of fixed-point iterations
RESAMPLES = 500  # number of bootstrap resamples
PRIOR = 0.5  # prior wins of each side of a compared pair, so that a model that always wins has a finite strength


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two videos of one prompt."""

    film: str  # common name of the two files
    left: str  # model of the left video
    right: str  # model of the right video


@dataclass(frozen=True, kw_only=True, slots=True)
class Vote:
    """One answer to a pair."""

    film: str
    left: str
    right: str
    choice: Choice
    at: float  # seconds since 1970


@dataclass(frozen=True, kw_only=True, slots=True)
class Strength:
    """A model's log-odds against the mean of all, with a 95 % bootstrap interval, and its share of votes."""

    strength: float
    low: float
    high: float
    share: float
    votes: int


def pairs_of(folders: Mapping[str, Path], seed: int = 0) -> list[Pair]:
    """Pairs of every two models on every video that both have, with order and sides determined by `seed`.

    Raises:
        InputError: there are fewer than two models, or two of them have no video of the same name.
    """
    if len(folders) < 2:
        raise InputError("give at least two models to compare, each as NAME=FOLDER")
    films = {name: {p.name for p in folder.glob("*") if p.suffix in SUFFIXES} for name, folder in folders.items()}
    draw, pairs = random.Random(seed), list[Pair]()
    for a, b in combinations(folders, 2):
        common = sorted(films[a] & films[b])
        if not common:
            raise InputError(
                f"{folders[a]} and {folders[b]} have no videos of the same name; make them from the same prompts, for "
                "example with longtake vbench make"
            )
        for film in common:
            left, right = draw.sample((a, b), 2)
            pairs.append(Pair(film=film, left=left, right=right))
    draw.shuffle(pairs)
    return pairs


class Ballot:
    """Pairs to vote on, and an append-only file of votes, one per line; an existing file is continued."""

    def __init__(self, pairs: Sequence[Pair], path: Path) -> None:
        self.pairs = pairs
        self.path = path
        self.votes = read_votes(path) if path.exists() else []

    def next(self) -> int | None:
        """Index of the first pair without a vote; None if all have one."""
        done = {(vote.film, frozenset((vote.left, vote.right))) for vote in self.votes}
        open_ones = (i for i, p in enumerate(self.pairs) if (p.film, frozenset((p.left, p.right))) not in done)
        return next(open_ones, None)

    def vote(self, number: int, choice: Choice) -> None:
        """Append an answer to the file; a second answer to the same pair is another vote.

        Raises:
            InputError: there is no such pair, or the file cannot be written.
        """
        if not 0 <= number < len(self.pairs):
            raise InputError(f"there is no pair {number}; there are {len(self.pairs)}")
        pair = self.pairs[number]
        vote = Vote(film=pair.film, left=pair.left, right=pair.right, choice=choice, at=round(time.time(), 1))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(vote)) + "\n")
        except OSError as error:
            raise InputError(f"the vote could not be written to {self.path}: {error}") from error
        self.votes.append(vote)


def read_votes(path: Path) -> list[Vote]:
    """Read the votes in a file.

    Raises:
        InputError: the file cannot be read, or a line is no vote.
    """
    try:
        return [Vote(**json.loads(line)) for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} holds no votes: {error}") from error


def strengths(votes: Sequence[Vote]) -> dict[str, Strength]:
    """Fit each model's strength, in descending order (Hunter 2004, MM algorithm).

    Raises:
        InputError: there are no votes.
    """
    if not votes:
        raise InputError("nobody has voted yet")
    names = sorted({name for vote in votes for name in (vote.left, vote.right)})
    fitted = _fit(votes, names)
    draw = random.Random(0)
    again = [_fit(draw.choices(votes, k=len(votes)), names) for _ in range(RESAMPLES)]
    found = {}
    for name in names:
        ordered = sorted(one[name] for one in again)
        mine = [_won(vote, name) for vote in votes if name in (vote.left, vote.right)]
        found[name] = Strength(
            strength=round(fitted[name], 3),
            low=round(ordered[int(0.025 * RESAMPLES)], 3),
            high=round(ordered[int(0.975 * RESAMPLES)], 3),
            share=round(sum(mine) / len(mine), 3),
            votes=len(mine),
        )
    return dict(sorted(found.items(), key=lambda item: -item[1].strength))


def _won(vote: Vote, name: str) -> float:
    if vote.choice == "tie":
        return 0.5
    return float(name == (vote.left if vote.choice == "left" else vote.right))


def _fit(votes: Sequence[Vote], names: Sequence[str]) -> dict[str, float]:
    """Log-strengths with mean zero; each compared pair has `PRIOR` additional wins on either side."""
    wins = dict.fromkeys(names, 0.0)
    games: dict[tuple[str, str], float] = {}
    for vote in votes:
        a, b = sorted((vote.left, vote.right))
        if (a, b) not in games:
            games[a, b] = 2 * PRIOR
            wins[a] += PRIOR
            wins[b] += PRIOR
        games[a, b] += 1
        wins[a] += _won(vote, a)
        wins[b] += _won(vote, b)
    p = dict.fromkeys(names, 1.0)
    for _ in range(ROUNDS):
        against = dict.fromkeys(names, 0.0)
        for (a, b), num in games.items():
            against[a] += num / (p[a] + p[b])
            against[b] += num / (p[a] + p[b])
        p = {name: wins[name] / against[name] if against[name] else p[name] for name in names}
        mean = math.exp(sum(map(math.log, p.values())) / len(p))
        p = {name: value / mean for name, value in p.items()}
    return {name: math.log(value) for name, value in p.items()}

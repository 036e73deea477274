"""Blind pairs, votes that last, and what they mean, against closed forms."""

import json
import math
from pathlib import Path

import pytest

from longtake.cli.main import main
from longtake.core.errors import InputError
from longtake.evals.preferences import Ballot, Choice, Vote, pairs_of, read_votes, strengths


def votes(left: str, right: str, *, lefts: int, rights: int, ties: int = 0) -> list[Vote]:
    counts: dict[Choice, int] = {"left": lefts, "right": rights, "tie": ties}
    choices: list[Choice] = [choice for choice, num in counts.items() for _ in range(num)]
    return [Vote(film=f"{i}.mp4", left=left, right=right, choice=c, at=0.0) for i, c in enumerate(choices)]


def folders(tmp_path: Path, **films: list[str]) -> dict[str, Path]:
    for name, names in films.items():
        (tmp_path / name).mkdir()
        for film in names:
            (tmp_path / name / film).write_bytes(b"film")
    return {name: tmp_path / name for name in films}


def test_two_models_have_the_log_odds_of_their_votes() -> None:
    found = strengths(votes("a", "b", lefts=30, rights=10))
    assert list(found) == ["a", "b"]
    assert found["a"].strength - found["b"].strength == pytest.approx(math.log(30.5 / 10.5), abs=2e-3)
    assert found["a"].share == 0.75
    assert found["a"].low < found["a"].strength < found["a"].high
    assert found["a"].low > 0 > found["b"].high


def test_sides_and_ties_do_not_favour_anybody() -> None:
    even = strengths(votes("a", "b", lefts=7, rights=7) + votes("b", "a", lefts=5, rights=5, ties=9))
    assert even["a"].strength == even["b"].strength == pytest.approx(0, abs=1e-6)
    assert even["a"].low < 0 < even["a"].high


def test_who_never_met_is_compared_through_others() -> None:
    found = strengths(votes("a", "b", lefts=30, rights=10) + votes("b", "c", lefts=30, rights=10))
    assert list(found) == ["a", "b", "c"]
    assert found["a"].strength - found["c"].strength == pytest.approx(2 * math.log(30.5 / 10.5), abs=4e-3)


def test_who_always_wins_is_not_infinitely_better() -> None:
    assert strengths(votes("a", "b", lefts=20, rights=0))["a"].strength == pytest.approx(math.log(41) / 2, abs=2e-3)
    with pytest.raises(InputError, match="nobody has voted"):
        strengths([])


def test_pairs_are_all_there_in_an_order_that_tells_nothing(tmp_path: Path) -> None:
    films = [f"p-{i}.mp4" for i in range(12)]
    given = folders(tmp_path, a=[*films, "only-a.mp4", "notes.txt"], b=films, c=films)
    pairs = pairs_of(given, seed=3)
    assert len(pairs) == 3 * 12
    assert pairs == pairs_of(given, seed=3) != pairs_of(given, seed=4)
    lefts = [pair.left for pair in pairs if {pair.left, pair.right} == {"a", "b"}]
    assert set(lefts) == {"a", "b"}
    assert [pair.film for pair in pairs] != sorted(pair.film for pair in pairs)
    with pytest.raises(InputError, match="at least two"):
        pairs_of({"a": given["a"]})
    with pytest.raises(InputError, match="no videos of the same name"):
        pairs_of({**given, **folders(tmp_path, d=["other.mp4"])})


def test_votes_last_and_are_gone_on_with(tmp_path: Path) -> None:
    given = folders(tmp_path, a=["1.mp4", "2.mp4"], b=["1.mp4", "2.mp4"])
    ballot = Ballot(pairs_of(given), tmp_path / "out" / "votes.jsonl")
    assert ballot.next() == 0
    ballot.vote(0, "left")
    assert Ballot(pairs_of(given), ballot.path).next() == 1
    ballot.vote(1, "tie")
    assert ballot.next() is None
    assert read_votes(ballot.path) == ballot.votes
    with pytest.raises(InputError, match="there is no pair 2"):
        ballot.vote(2, "left")
    ballot.path.write_text("no vote\n")
    with pytest.raises(InputError, match="holds no votes"):
        Ballot(pairs_of(given), ballot.path)


def test_the_command_says_what_votes_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "votes.jsonl"
    given = folders(tmp_path, a=["1.mp4"], b=["1.mp4"])
    Ballot(pairs_of(given), path).vote(0, "left")
    assert main(["prefer", "--results", "--votes", str(path)]) == 0
    assert {name: one["votes"] for name, one in json.loads(capsys.readouterr().out).items()} == {"a": 1, "b": 1}
    for words in ([], ["a"], [f"a={tmp_path / 'a'}"], [f"a={tmp_path / 'none'}", f"b={tmp_path / 'b'}"]):
        assert main(["prefer", *words, "--votes", str(path)]) == 2
        assert capsys.readouterr().err.startswith("error: ")

"""The little game: what keys do to the picture."""

import pytest
import torch

from longtake.core.errors import InputError
from longtake.worlds.game import Game, Key


def held(game: Game, keys: set[Key], frames: int) -> Game:
    for _ in range(frames):
        game = game.step(frozenset(keys))
    return game


def centre(game: Game) -> tuple[float, float]:
    """Where the tiger is: what differs from the same place with the tiger elsewhere."""
    away = held(game, {"left"} if game.scene.actors[0].x > 0.5 else {"right"}, 200)
    differs = (game.picture().float() - away.picture().float()).abs().sum(-1)
    half = 80 if game.scene.actors[0].x > 0.5 else 0
    rows, columns = torch.nonzero(differs[:, half : half + 80] > 60, as_tuple=True)
    return float(rows.float().mean()), float(columns.float().mean()) + half


def test_arrow_keys_steer_and_the_subject_looks_where_it_goes() -> None:
    game = Game.new()
    left, right = held(game, {"left"}, 20), held(game, {"right"}, 20)
    assert centre(left)[1] < 75
    assert centre(right)[1] > 85
    assert left.scene.actors[0].direction == "left"
    assert right.scene.actors[0].direction == "right"
    assert held(game, {"left", "right"}, 20).scene == game.scene


def test_up_is_a_jump_that_ends() -> None:
    game = held(Game.new(), {"right"}, 20)
    aloft = held(held(game, {"up"}, 1), set(), 4)
    assert centre(aloft)[0] < centre(game)[0] - 10
    assert torch.equal(held(game, set(), 40).picture(), held(aloft, set(), 40).picture())


def test_it_stays_on_the_screen_and_is_the_same_each_time() -> None:
    game = held(Game.new("butterfly", "green_park"), {"up", "right"}, 500)
    assert 0 < game.scene.actors[0].x < 1
    assert 0 < game.scene.actors[0].y < 1
    assert torch.equal(game.picture(), held(Game.new("butterfly", "green_park"), {"up", "right"}, 500).picture())


@pytest.mark.parametrize(
    ("subject", "place"), [("tiger", "moon"), ("unicorn", "green_park"), ("sailboat", "green_park")]
)
def test_who_cannot_be_there_is_refused(subject: str, place: str) -> None:
    with pytest.raises(InputError):
        Game.new(subject, place)

"""A game's time is the take's time; what was pressed meanwhile is in the pictures."""

import time

import torch

from longtake.core.shapes import PictureSize
from longtake.studio.games import GameSource
from longtake.worlds.game import Game

SIZE = PictureSize(height=48, width=80)


def source() -> GameSource:
    return GameSource(Game.new("tiger", "green_park", SIZE))


def test_it_stands_still_without_keys_and_moves_with_them() -> None:
    game = source()
    still = game.take(9)
    assert still is not None
    assert still.shape == (9, 48, 80, 3)
    assert torch.equal(still[0], still[8])
    game.hold(frozenset({"right"}))
    game.take(2)  # time has hardly gone by: the press is noted within it
    moving = game.take(9)
    assert moving is not None
    assert not torch.equal(moving[0], moving[8])


def test_even_the_shortest_press_moves_something() -> None:
    game = source()
    before = game.take(1)
    game.hold(frozenset({"right"}))
    game.hold(frozenset())
    time.sleep(0.01)
    game.take(6)
    after = game.take(1)
    assert before is not None
    assert after is not None
    assert not torch.equal(before, after)
    later = game.take(5)
    assert later is not None
    assert torch.equal(later[0], later[4])


def test_a_closed_game_has_no_more_pictures() -> None:
    game = source()
    game.close()
    assert game.take(3) is None

"""Paint over a simple game while it is played.

python examples/restyle.py
"""

from collections.abc import Iterator
from pathlib import Path

import torch

import longtake
from longtake.core.shapes import Pictures
from longtake.media.sheets import Row, contact_sheet, save_sheet
from longtake.worlds.game import Game, Key


def main(model: str = "tiny-world", out: Path = Path("out/restyle.png")) -> None:
    """A car is steered right, then left; the model sees flat colours on a checkerboard."""
    with longtake.open(model) as studio:
        game = list(played(Game.new("car", "city_street", studio.size)))
        take = studio.restyle(iter(game), "a car drives on a city street", seed=1)
        painted = torch.cat([chunk.frames for chunk in take.stream()])
        rows = [
            Row(pictures=torch.stack(game), caption="the game"),
            Row(pictures=painted, caption="what is made of it"),
        ]
        save_sheet(contact_sheet(rows, columns=8), out)


def played(game: Game) -> Iterator[Pictures]:
    """Two seconds to the right, two to the left."""
    moves: tuple[Key, ...] = ("right",) * 32 + ("left",) * 32
    for key in moves:
        yield game.picture()
        game = game.step(frozenset({key}))


if __name__ == "__main__":
    main()

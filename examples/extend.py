"""Go on where a clip ends.

python examples/extend.py
"""

from pathlib import Path

import torch

import longtake
from longtake.media.sheets import Row, contact_sheet, save_sheet
from longtake.worlds.game import Game


def main(model: str = "tiny-world", out: Path = Path("out/extend.png")) -> None:
    """A rendered clip of two seconds, and four that the model makes of it. Any video file will do in its place."""
    with longtake.open(model) as studio:
        game, pictures = Game.new("tiger", "green_park", studio.size), []
        for _ in range(32):
            pictures.append(game.picture("full"))
            game = game.step(frozenset({"right"}))
        clip = torch.stack(pictures)
        take = studio.extend(clip, "a tiger walks to the right in a park", seed=2)
        made = torch.cat([chunk.frames for chunk in take.stream(seconds=4)])
        rows = [Row(pictures=clip, caption="the clip"), Row(pictures=made, caption="its end, and what follows")]
        save_sheet(contact_sheet(rows, columns=8), out)


if __name__ == "__main__":
    main()

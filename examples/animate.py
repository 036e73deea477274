"""Let a picture move.

python examples/animate.py
"""

from pathlib import Path

import longtake
from longtake.worlds.game import Game


def main(model: str = "tiny-world", out: Path = Path("out/animate.png")) -> None:
    """A rendered picture of a tiger begins to walk. Any image file will do in its place."""
    with longtake.open(model) as studio:
        picture = Game.new("tiger", "green_park", studio.size).picture("full")
        take = studio.animate(picture[None], "a tiger walks to the right in a park", seed=2)
        for chunk in take.stream(seconds=4):
            print(f"chunk {chunk.index}: {len(chunk.frames)} frames")
        take.save(out)


if __name__ == "__main__":
    main()

"""Keep a take as a script, change a line of it, and play it again.

python examples/replay.py
"""

from pathlib import Path

import longtake
from longtake.studio.script import Script


def main(model: str = "tiny-world", out: Path = Path("out/replay.png")) -> None:
    """The same bits from the script; another take from the script with another prompt."""
    with longtake.open(model) as studio:
        take = studio.take("a sailboat sails on the sea", seed=5)
        take.cue("the sun sets", at_s=2.0)
        first = [chunk.frames for chunk in take.stream(seconds=5)]
        path = take.script().save(out.with_suffix(".take.json"))
        again = [chunk.frames for chunk in studio.replay(path).stream()]
        print("the same bits:", all(bool((a == b).all()) for a, b in zip(first, again, strict=True)))
        script = Script.load(path)
        changed = script.model_copy(update={"opening": script.opening.model_copy(update={"seed": 6})})
        other = studio.replay(changed)
        for _ in other.stream():
            pass
        other.save(out)


if __name__ == "__main__":
    main()

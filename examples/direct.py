"""Change a take while it is being made: a cue, a fade, a cut.

python examples/direct.py
"""

from pathlib import Path

import longtake


def main(model: str = "tiny-world", out: Path = Path("out/direct.png")) -> None:
    """Stream a take and say what happens in it."""
    with longtake.open(model) as studio:
        take = studio.take("a tiger walks through a forest", seed=1)
        take.cue("a red car drives on a city street", transition="cut", at_s=9)  # known beforehand
        for chunk in take.stream(seconds=12):
            if chunk.index == 3:
                receipt = take.cue("snow starts to fall")
                print(f"accepted at {receipt.accepted_at.seconds:.2f} s, due at {receipt.due_at.seconds:.2f} s")
            if chunk.index == 7:
                take.cue("night falls", fade=4)
            if chunk.cue is not None:
                print(f"{chunk.start_s:.2f} s: {chunk.prompt}")
        take.save(out)


if __name__ == "__main__":
    main()

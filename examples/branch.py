"""Go back in a take, and go on from there in another way: the branches share their past.

python examples/branch.py
"""

from pathlib import Path

import longtake
from longtake.media.sheets import Row, contact_sheet, save_sheet
from longtake.studio.takes import Take


def main(model: str = "tiny-world", out: Path = Path("out/branch.png")) -> None:
    """One beginning, three endings."""
    with longtake.open(model) as studio:
        take = studio.take("a red car drives on a city street", seed=3)
        for _ in take.stream(chunks=4):
            pass
        night = take.retake(at=4, prompt="a red car drives on a city street, night falls")
        snow = take.retake(at=4, prompt="a red car drives on a city street, snow starts to fall")
        for branch in (take, night, snow):
            for _ in branch.stream(chunks=5):
                pass
        take.rewind(to=1)
        print(f"the first take is at {take.duration_s:.2f} s again, its branches at {night.duration_s:.2f} s")
        save_sheet(contact_sheet([row(branch) for branch in (night, snow)], columns=8), out)


def row(take: Take) -> Row:
    """A take as a strip of pictures."""
    import torch

    assert take.head is not None
    return Row(pictures=torch.cat(list(take.frames())), caption=take.head.in_force.prompt)


if __name__ == "__main__":
    main()

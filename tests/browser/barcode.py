"""A studio whose every picture carries its own number, so that a test can read off a canvas which frame is shown.

27 cells in the top rows: 24 bits of the frame's number in its take, and three of parity.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from longtake.core.shapes import Pictures, PictureSize
from longtake.sample.model import open_model
from longtake.sample.plans import ChunkPlan
from longtake.sample.sampler import ChunkRequest, ChunkResult, Sampler
from longtake.studio.studio import Studio
from tests.tiny import PRESET

BITS, PARITY = 24, 3
ROWS = 16
PRESET_WITH_ROOM = replace(PRESET, size=PictureSize(height=96, width=160))


FLASHING = "strobe"  # a prompt with this word is left as it is: what a network that learned nothing shows flashes


def painted(pictures: Pictures, first: int, prompt: str = FLASHING) -> Pictures:
    """Pictures, dark ones as a rule, with the numbers of frames `first`, `first` + 1, ... on them."""
    pictures = pictures.clone() if FLASHING in prompt else pictures // 4
    width = pictures.shape[2]
    for k, picture in enumerate(pictures):
        number = first + k
        cells = [number >> bit & 1 for bit in range(BITS)]
        cells += [sum(cells[i::PARITY]) & 1 for i in range(PARITY)]
        for i, cell in enumerate(cells):
            left, right = i * width // len(cells), (i + 1) * width // len(cells)
            picture[:ROWS, left:right] = 235 * cell + 10
    return pictures


def number_of(row: Sequence[int]) -> int:
    """The number that a row of grey values spells.

    Raises:
        ValueError: its parity is wrong: this is no whole frame.
    """
    width, cells = len(row), BITS + PARITY
    bits = [int(row[(2 * i + 1) * width // (2 * cells)] > 110) for i in range(cells)]
    number, parity = bits[:BITS], bits[BITS:]
    if parity != [sum(number[i::PARITY]) & 1 for i in range(PARITY)]:
        raise ValueError(f"no barcode: {bits}")
    return sum(bit << i for i, bit in enumerate(number))


class Barcoded:
    """A sampler that numbers what another one makes."""

    def __init__(self, inner: Sampler) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def step(self, requests: Sequence[ChunkRequest]) -> list[ChunkResult | None]:
        results = self._inner.step(requests)
        return [r and self._numbered(r, request.plan) for r, request in zip(results, requests, strict=True)]

    def _numbered(self, result: ChunkResult, plan: ChunkPlan) -> ChunkResult:
        first = 0 if plan.idx == 0 else 9 + 12 * (plan.idx - 1)
        prompt = " ".join(words for words, _ in plan.wording)
        return replace(result, pictures=painted(result.pictures, first, prompt))


def barcoded_studio(model: str, *, device: str | None = None, **_: bool) -> Studio:
    """What `open_studio` gives, but every frame is numbered."""
    studio = Studio(open_model(model, device=device))
    studio.engine.sampler = Barcoded(studio.engine.sampler)  # type: ignore[assignment]
    return studio

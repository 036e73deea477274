"""Whether a run is still worth its time: figures that must stay within bounds, and what it means when one does not.

A loss of DMD says nothing about quality (its value is the size of a gradient, not a distance), so what the student
makes is watched instead: its contrast and motion against the data's, and how far critic and teacher are apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from longtake.core.errors import TrainingError

PATIENCE = 3  # reports in a row


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """Where a figure of the log must lie, and what to say when it does not."""

    figure: str
    low: float = float("-inf")
    high: float = float("inf")
    too_low: str = ""
    too_high: str = ""


class Health:
    """Stops a run whose figure is out of bounds at `PATIENCE` reports in a row: one alone may be chance."""

    def __init__(self, bounds: Sequence[Bound]) -> None:
        self.bounds = bounds
        self._outside = {bound.figure: 0 for bound in bounds}

    def check(self, step: int, figures: Mapping[str, float]) -> None:
        """Look at the means of a report; figures without bounds are let be.

        Raises:
            TrainingError: the run is sick. Says since when, which figure, and what helps.
        """
        for bound in self.bounds:
            value = figures.get(bound.figure)
            if value is None or bound.low <= value <= bound.high:
                self._outside[bound.figure] = 0
                continue
            self._outside[bound.figure] += 1
            if self._outside[bound.figure] >= PATIENCE:
                why = bound.too_low if value < bound.low else bound.too_high
                raise TrainingError(
                    f"stopped at step {step}: {bound.figure} is {value:.3g} and should lie between {bound.low:.3g} and "
                    f"{bound.high:.3g}: {why}. The last checkpoint is kept; change the recipe, remove the stage's "
                    "folder and train it anew"
                )

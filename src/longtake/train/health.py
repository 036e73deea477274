"""Health checks of a training run: metrics that must stay within bounds, with advice when one does not.

The DMD loss does not measure quality (its value is the size of a gradient, not a distance), so the student's clips are
monitored instead: their contrast and motion relative to the data's, and the distance between critic and teacher.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from longtake.core.errors import TrainingError

PATIENCE = 3  # consecutive reports with a metric out of bounds before a run is stopped


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """Allowed range of a logged metric, with advice for values below and above it."""

    metric: str
    low: float = float("-inf")
    high: float = float("inf")
    too_low: str = ""
    too_high: str = ""


class Health:
    """Check that stops a run with a metric out of bounds in `PATIENCE` consecutive reports; one may be chance."""

    def __init__(self, bounds: Sequence[Bound]) -> None:
        self.bounds = bounds
        self._outside = {bound.metric: 0 for bound in bounds}

    def check(self, step: int, metrics: Mapping[str, float]) -> None:
        """Check the mean values of a report; metrics without bounds are ignored.

        Raises:
            TrainingError: a metric is out of bounds again; the message names the step, the metric and a remedy.
        """
        for bound in self.bounds:
            value = metrics.get(bound.metric)
            if value is None or bound.low <= value <= bound.high:
                self._outside[bound.metric] = 0
                continue
            self._outside[bound.metric] += 1
            if self._outside[bound.metric] >= PATIENCE:
                why = bound.too_low if value < bound.low else bound.too_high
                raise TrainingError(
                    f"stopped at step {step}: {bound.metric} is {value:.3g} and should lie between {bound.low:.3g} and "
                    f"{bound.high:.3g}: {why}. The last checkpoint is kept; change the recipe, remove the stage's "
                    "folder and train it anew"
                )

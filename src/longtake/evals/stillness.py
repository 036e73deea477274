"""How still a clip is in which nothing should move: how much it changes, in which rhythm, and where chunks meet.

A codec whose frames come four at a time shimmers in a pattern of four; chunks that do not agree show at their borders.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.core.shapes import Pictures

LAGS = (2, 4, 12)  # frames: the rhythms of two frames, of a latent frame, of a chunk
FAINT = 0.02  # grey levels: changes whose deviation is smaller have no rhythm that anyone could see


@dataclass(frozen=True, kw_only=True, slots=True)
class Stillness:
    """What successive frames of a clip differ by."""

    change: float  # mean, in grey levels of 255
    rhythm: float  # the largest autocorrelation of the changes over `LAGS`; 0: none
    border: float  # median change between chunks over the median of all changes; 1: chunks meet unseen


def stillness(clip: Pictures, borders: list[int]) -> Stillness:
    """The stillness of a clip.

    Args:
        clip: at least two frames.
        borders: frames with which later chunks begin.
    """
    changes = changes_of(clip)
    middle = float(changes.median())
    at = torch.tensor([frame - 1 for frame in borders if 0 < frame < len(clip)], dtype=torch.long)
    border = float(changes[at].median()) / middle if len(at) and middle > FAINT else 1.0
    rhythm = max((autocorrelation(changes, lag) for lag in LAGS), default=0.0)
    return Stillness(change=float(changes.mean()), rhythm=rhythm, border=border)


def changes_of(clip: Pictures) -> Float[Tensor, " f"]:
    """Mean absolute difference of each frame and the next one, in grey levels of 255."""
    x = clip.float()
    return torch.stack([(after - before).abs().mean() for before, after in pairwise(x)])


def autocorrelation(series: Float[Tensor, " f"], lag: int) -> float:
    """Correlation of a series with itself `lag` later, in [-1, 1]; 0 where it is too short or hardly varies."""
    centred = series - series.mean()
    power = centred.square().sum()
    if len(series) <= lag or float(series.std()) < FAINT:
        return 0.0
    return float((centred[lag:] * centred[:-lag]).sum() / power)

"""Stillness of a clip in which nothing should move: size and rhythm of its changes, and changes at chunk borders.

A codec that decodes four frames at a time may shimmer with a period of four; chunks that differ show at their borders.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.core.shapes import Pictures

LAGS = (2, 4, 12)  # periods in frames: two frames, a latent frame, a chunk
FAINT = 0.02  # standard deviation of the changes, in grey levels, below which a rhythm is invisible


@dataclass(frozen=True, kw_only=True, slots=True)
class Stillness:
    """Statistics of the changes between successive frames of a clip."""

    change: float  # mean change, in grey levels of 255
    rhythm: float  # largest autocorrelation of the changes over `LAGS`; 0: none
    border: float  # median change between chunks over the median of all changes; 1: invisible borders


def stillness(clip: Pictures, borders: list[int]) -> Stillness:
    """Measure the stillness of a clip.

    Args:
        clip: clip of at least two frames.
        borders: indices of the first frames of later chunks.
    """
    changes = changes_of(clip)
    middle = float(changes.median())
    at = torch.tensor([frame - 1 for frame in borders if 0 < frame < len(clip)], dtype=torch.long)
    border = float(changes[at].median()) / middle if len(at) and middle > FAINT else 1.0
    rhythm = max((autocorrelation(changes, lag) for lag in LAGS), default=0.0)
    return Stillness(change=float(changes.mean()), rhythm=rhythm, border=border)


def changes_of(clip: Pictures) -> Float[Tensor, " f"]:
    """Mean absolute difference of each frame and the next, in grey levels of 255."""
    x = clip.float()
    return torch.stack([(after - before).abs().mean() for before, after in pairwise(x)])


def autocorrelation(series: Float[Tensor, " f"], lag: int) -> float:
    """Autocorrelation of a series at `lag`, in [-1, 1]; 0 if the series is too short or hardly varies."""
    centred = series - series.mean()
    power = centred.square().sum()
    if len(series) <= lag or float(series.std()) < FAINT:
        return 0.0
    return float((centred[lag:] * centred[:-lag]).sum() / power)

"""Stillness of clips of which it is known how they flicker."""

import pytest
import torch

from longtake.evals.stillness import autocorrelation, changes_of, stillness


def clip_of(levels: list[int]) -> torch.Tensor:
    """A frame of one grey for each level."""
    return torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 8, 8, 3).clone()


def test_a_still_clip_does_not_change_has_no_rhythm_and_no_borders() -> None:
    found = stillness(clip_of([90] * 30), [9, 21])
    assert (found.change, found.rhythm, found.border) == (0, 0, 1)


def test_changes_are_in_grey_levels() -> None:
    assert changes_of(clip_of([10, 12, 9])).tolist() == [2, 3]
    assert stillness(clip_of([10, 12, 10, 12]), []).change == 2


def test_a_shimmer_in_fours_has_a_rhythm_and_noise_has_none() -> None:
    shimmer = clip_of([90, 92, 90, 91] * 12)
    assert stillness(shimmer, []).rhythm > 0.8
    noise = clip_of(torch.randint(88, 93, (200,), generator=torch.Generator().manual_seed(0)).tolist())
    assert stillness(noise, []).rhythm < 0.3


def test_chunks_that_do_not_agree_show_at_their_borders() -> None:
    levels = [100 + (i % 2) for i in range(9)] + [110 + (i % 2) for i in range(12)] + [100 + (i % 2) for i in range(12)]
    assert stillness(clip_of(levels), [9, 21]).border == pytest.approx(10, abs=1)
    assert stillness(clip_of([100 + (i % 2) for i in range(33)]), [9, 21]).border == 1


def test_autocorrelation_by_hand() -> None:
    series = torch.tensor([1.0, -1.0] * 10)
    assert autocorrelation(series, 2) == pytest.approx(0.9)
    assert autocorrelation(series, 1) == pytest.approx(-0.95)
    assert autocorrelation(series[:2], 4) == 0

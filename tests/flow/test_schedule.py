"""Noise levels: what shifting does to them."""

import torch

from longtake.flow.schedule import logit_normal_sigma, shift_sigma


def test_a_shift_for_each_clip_is_that_shift_alone() -> None:
    both = logit_normal_sigma((2, 1), torch.tensor([[3.0], [8.0]]), torch.Generator().manual_seed(0))
    for row, shift in enumerate((3.0, 8.0)):
        alone = logit_normal_sigma((2, 1), shift, torch.Generator().manual_seed(0))
        assert both[row] == alone[row]


def test_a_shift_raises_levels_and_leaves_the_ends() -> None:
    levels = torch.tensor([0.0, 0.5, 1.0])
    assert shift_sigma(levels, 3.0).tolist() == [0.0, 0.75, 1.0]
    assert torch.equal(shift_sigma(levels, 1.0), levels)

"""Rotary positions: Wan's split of a head, its pairing of channels, and what rotation must leave alone."""

import math

import pytest
import torch
from torch import Tensor

from longtake.nets.rope import Rope, axis_pairs, rope_for

THETA = 10_000.0


def positions(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def heads(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def complex_reference(x: Tensor, frames: Tensor, height: int, width: int) -> Tensor:
    """Wan's rotation as its paper code does it: adjacent channels as complex numbers, in complex128."""
    pairs = axis_pairs(x.shape[-1])
    angles = []
    for frame in frames.tolist():
        for row in range(height):
            for column in range(width):
                token: list[float] = []
                for place, num in zip((frame, row, column), pairs, strict=True):
                    token += [place * THETA ** (-2 * i / (2 * num)) for i in range(num)]
                angles.append(token)
    turn = torch.polar(torch.ones(1, dtype=torch.float64), torch.tensor(angles, dtype=torch.float64))
    paired = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(paired * turn[None, :, None]).flatten(-2)


@pytest.mark.parametrize(
    ("head_dim", "expected"), [(128, (22, 21, 21)), (64, (12, 10, 10)), (24, (4, 4, 4)), (12, (2, 2, 2))]
)
def test_a_head_is_split_as_wan_splits_it(head_dim: int, expected: tuple[int, int, int]) -> None:
    assert axis_pairs(head_dim) == expected
    # Wan's own formula, in channels: d - 4 (d // 6), 2 (d // 6), 2 (d // 6).
    third = 2 * (head_dim // 6)
    assert tuple(2 * pairs for pairs in axis_pairs(head_dim)) == (head_dim - 2 * third, third, third)


@pytest.mark.parametrize("head_dim", [24, 64, 128])
def test_adjacent_channels_turn_as_complex_numbers(head_dim: int) -> None:
    frames, height, width = positions(0, 1, 5, 20), 2, 3
    x = heads(2, 4 * height * width, 3, head_dim)
    turned = rope_for(frames, height, width, head_dim)(x)
    assert (turned - complex_reference(x, frames, height, width)).abs().max() < 1e-5


def test_control_the_half_split_pairing_is_another_rotation() -> None:
    frames, height, width = positions(0, 1, 5, 20), 2, 3
    x = heads(1, 4 * height * width, 1, 24)
    halves = x.unflatten(-1, (2, 12)).transpose(-1, -2).flatten(-2)  # (i, i + k/2) side by side
    turned = rope_for(frames, height, width, 24)(x)
    assert (turned - complex_reference(halves, frames, height, width)).abs().max() > 0.1


@pytest.mark.parametrize("shift", [1.0, 7.0, 100.0])
def test_products_depend_on_the_distance_in_time_alone(shift: float) -> None:
    height, width, head_dim = 2, 3, 64
    q, k = heads(1, 6, 2, head_dim, seed=1), heads(1, 6, 2, head_dim, seed=2)

    def products(query_at: float, key_at: float) -> Tensor:
        turned_q = rope_for(positions(query_at), height, width, head_dim)(q)
        turned_k = rope_for(positions(key_at), height, width, head_dim)(k)
        return torch.einsum("bsnk,bmnk->bnsm", turned_q, turned_k)

    assert (products(5.0, 3.0) - products(5.0 + shift, 3.0 + shift)).abs().max() < 2e-4
    assert (products(5.0, 3.0) - products(5.0 + shift, 3.0)).abs().max() > 0.1


def test_products_depend_on_the_distance_in_space_alone() -> None:
    """Rows 0 and 1 relate as rows 2 and 3 do, columns likewise."""
    height, width, head_dim = 4, 4, 64
    same = heads(1, 1, 1, head_dim).expand(1, height * width, 1, head_dim)
    turned = rope_for(positions(2), height, width, head_dim)(same)
    grid = torch.einsum("bsnk,bmnk->sm", turned, turned).unflatten(0, (4, 4)).unflatten(2, (4, 4))
    assert abs(float(grid[0, 0, 1, 2] - grid[2, 1, 3, 3])) < 1e-4
    assert abs(float(grid[0, 0, 1, 2] - grid[0, 0, 2, 1])) > 1e-3


def test_rotation_keeps_lengths_and_position_zero_is_the_identity() -> None:
    x = heads(2, 1, 3, 128)
    assert torch.equal(rope_for(positions(0), 1, 1, 128)(x), x)
    turned = rope_for(positions(17), 1, 1, 128)(x)
    assert (turned.norm(dim=-1) - x.norm(dim=-1)).abs().max() < 1e-5


def test_each_axis_turns_its_own_channels() -> None:
    head_dim = 64
    time, rows, columns = (2 * pairs for pairs in axis_pairs(head_dim))
    x = heads(1, 1, 1, head_dim)

    def moved(rope: Rope, token: int) -> Tensor:
        every = x.expand(1, len(rope.turns), 1, head_dim)
        return (rope(every)[0, token, 0] - x[0, 0, 0]).abs() > 1e-6

    in_time = moved(rope_for(positions(3), 1, 1, head_dim), 0)
    down = moved(rope_for(positions(0), 2, 1, head_dim), 1)
    across = moved(rope_for(positions(0), 1, 2, head_dim), 1)
    assert not in_time[time:].any()
    assert not down[:time].any()
    assert not down[time + rows :].any()
    assert not across[: time + rows].any()
    assert in_time[:2].all()
    assert down[time : time + 2].all()
    assert across[-columns : -columns + 2].all()


def test_there_is_no_longest_video() -> None:
    """Wan's tables end at 1,024; here a take may be longer, and the angles stay exact."""
    x = heads(1, 3, 1, 128)
    frames = positions(1023, 1024, 100_000)
    turned = rope_for(frames, 1, 1, 128)(x)
    assert (turned - complex_reference(x, frames, 1, 1)).abs().max() < 1e-5
    slowest = rope_for(frames, 1, 1, 128)
    assert math.isclose(float(slowest.turns[2, 0, 0].real), math.cos(100_000), abs_tol=1e-6)


def test_half_precision_is_turned_in_single_precision() -> None:
    x = heads(1, 1, 1, 128).bfloat16()
    turned = rope_for(positions(500), 1, 1, 128)(x)
    assert turned.dtype is torch.bfloat16
    exact = complex_reference(x, positions(500), 1, 1)
    assert (turned.double() - exact).abs().max() < 2**-7  # the rounding of the result, no more


def test_positions_need_not_be_whole_or_in_order() -> None:
    x = heads(1, 3, 1, 24)
    frames = positions(4.5, 0.25, 2)
    assert (rope_for(frames, 1, 1, 24)(x) - complex_reference(x, frames, 1, 1)).abs().max() < 1e-5

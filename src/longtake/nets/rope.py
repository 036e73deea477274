"""Rotary embedding in three axes (Su et al. 2021; Wan's split of a head into time, height, width).

Of the k/2 complex pairs of a head, k//6 rotate with height, k//6 with width and the rest with time: 22/21/21
for Wan's k = 128. Pairs are adjacent channels. Tables are in fp32 (complex64) and computed from the given positions,
so the length of a video is not limited.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Complex, Float
from torch import Tensor

THETA = 10_000.0


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotations of all tokens, as complex numbers of modulus 1.

    They broadcast over heads, and over the batch unless they are given for each clip.
    """

    turns: Complex[Tensor, "*b s 1 half"]

    def __call__(self, x: Float[Tensor, "b s n k"]) -> Float[Tensor, "b s n k"]:
        """Rotate queries or keys according to their positions."""
        # The rotation is computed in fp32 or wider: in bf16 the angle error grows with the position.
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        pairs = torch.view_as_complex(wide.unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * self.turns).flatten(-2).to(x.dtype)


def axis_pairs(head_dim: int) -> tuple[int, int, int]:
    """Number of complex pairs for (time, height, width)."""
    space = head_dim // 6
    return head_dim // 2 - 2 * space, space, space


def rope_for(frame_positions: Float[Tensor, " f"], height: int, width: int, head_dim: int) -> Rope:
    """Rotary embedding of tokens in the order latent frame, row, column.

    Args:
        frame_positions: temporal position of each latent frame; any real numbers.
        height: rows of tokens.
        width: columns of tokens.
        head_dim: channels per head.
    """
    device = frame_positions.device
    angles = []
    positions = (
        frame_positions.double(),
        torch.arange(height, dtype=torch.float64, device=device),
        torch.arange(width, dtype=torch.float64, device=device),
    )
    for pos, pairs in zip(positions, axis_pairs(head_dim), strict=True):
        freqs = THETA ** -(torch.arange(pairs, dtype=torch.float64, device=device) / pairs)
        angles.append(pos[:, None] * freqs)
    f, h, w = (len(p) for p in positions)
    time = angles[0][:, None, None].expand(f, h, w, -1)
    rows = angles[1][None, :, None].expand(f, h, w, -1)
    columns = angles[2][None, None].expand(f, h, w, -1)
    table = rearrange(torch.cat((time, rows, columns), -1), "f h w half -> (f h w) 1 half")
    return Rope(torch.complex(table.cos().float(), table.sin().float()))

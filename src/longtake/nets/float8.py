"""Linear layers in floats of 8 bits (E4M3): half the memory of bf16, twice the products a second where a GPU has them.

    y = s_x s_w (x / s_x)_8 (W / s_w)_8^T + b

s_x is a scale a token, found as it comes, s_w one an output: the largest number of a row over the largest that the
format holds (Micikevicius et al. 2022, "FP8 formats for deep learning"). Products are summed in fp32.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from longtake.nets.dit import DiT
from longtake.nets.linears import replace_linears

FLOAT8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FLOAT8).max


class Float8Linear(nn.Module):
    """A linear layer whose weights, and what comes in, are of 8 bits."""

    weight: Tensor  # [out, in], FLOAT8
    scale: Float[Tensor, "1 out"]

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = rounded(linear.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.T.contiguous())
        self.bias = linear.bias

    def forward(self, x: Float[Tensor, "... in"]) -> Float[Tensor, "... out"]:
        rows, scale = rounded(x.flatten(0, -2))
        # Row-wise scales give bf16 on a GPU. Public (`functional.scaled_mm`) only from torch 2.10 on.
        scaled_mm = torch._scaled_mm  # pyright: ignore[reportPrivateImportUsage]
        y = scaled_mm(rows, self.weight.t(), scale, self.scale, out_dtype=torch.bfloat16)
        y = y.to(x.dtype).unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias


def rounded(rows: Float[Tensor, "m k"]) -> tuple[Tensor, Float[Tensor, "m 1"]]:
    """Rows in 8 bits, and what to multiply each with."""
    scale = rows.abs().amax(1, keepdim=True).float().clamp_min(1e-12) / LARGEST
    return (rows / scale).to(FLOAT8), scale


def in_float8(dit: DiT) -> None:
    """Replace the linear layers of all blocks, nearly all of a large network. Embeddings, norms and head stay."""
    replace_linears(dit.blocks, Float8Linear)


def has_float8(device: torch.device) -> bool:
    """Can a device multiply in 8 bits? (Ada, Hopper and newer; a CPU can, slowly.)"""
    return device.type == "cpu" or torch.cuda.get_device_capability(device) >= (8, 9)

"""Linear layers in 8-bit floats (E4M3): half the memory of bf16, and twice its throughput on GPUs with fp8 units.

    y = s_x s_w (x / s_x)_8 (W / s_w)_8^T + b

s_x is a scale per token, computed from the input, and s_w a scale per output: the largest magnitude of the row divided
by the largest number of the format (Micikevicius et al. 2022, "FP8 formats for deep learning"). Products are
accumulated in fp32.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from longtake.nets.dit import DiT
from longtake.nets.linears import replace_linears

FLOAT8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FLOAT8).max


class Float8Linear(nn.Module):
    """Linear layer with weights and inputs in 8-bit floats."""

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
        # With row-wise scales a GPU can only return bf16. The function is public (`functional.scaled_mm`) only from
        # torch 2.10 on.
        scaled_mm = torch._scaled_mm  # pyright: ignore[reportPrivateImportUsage]
        y = scaled_mm(rows, self.weight.t(), scale, self.scale, out_dtype=torch.bfloat16)
        y = y.to(x.dtype).unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias


def rounded(rows: Float[Tensor, "m k"]) -> tuple[Tensor, Float[Tensor, "m 1"]]:
    """Quantise rows to 8-bit floats; returns them and the scale by which to multiply each."""
    scale = rows.abs().amax(1, keepdim=True).float().clamp_min(1e-12) / LARGEST
    return (rows / scale).to(FLOAT8), scale


def in_float8(dit: DiT) -> None:
    """Replace the linear layers of all blocks by 8-bit ones, in place; embeddings, norms and head are unchanged."""
    replace_linears(dit.blocks, Float8Linear)


def has_float8(device: torch.device) -> bool:
    """Whether a device supports 8-bit float products: Ada, Hopper and newer GPUs, and (slowly) CPUs."""
    return device.type == "cpu" or torch.cuda.get_device_capability(device) >= (8, 9)

"""Where bf16 pays."""

import torch


def has_bf16_units(device: torch.device) -> bool:
    """Whether a device multiplies bf16 fast: a GPU does, and a CPU with AMX or AVX-512 BF16.

    Other CPUs take up to a hundred times as long as in fp32.
    """
    if device.type != "cpu":
        return True
    # Public only from torch 2.13 on.
    amx, avx512 = torch.cpu._is_amx_tile_supported, torch.cpu._is_avx512_bf16_supported  # pyright: ignore[reportPrivateUsage]
    return amx() or avx512()

"""Detection of devices on which bf16 is faster than fp32."""

import torch


def has_bf16_units(device: torch.device) -> bool:
    """Whether a device has fast bf16 products: any GPU, and CPUs with AMX or AVX-512 BF16.

    On other CPUs bf16 takes up to a hundred times as long as fp32.
    """
    if device.type != "cpu":
        return True
    # These queries are public only from torch 2.13 on.
    amx, avx512 = torch.cpu._is_amx_tile_supported, torch.cpu._is_avx512_bf16_supported  # pyright: ignore[reportPrivateUsage]
    return amx() or avx512()

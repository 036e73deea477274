"""Noise keyed by meaning: the same seed and place in a take give the same noise on every device.

Nothing that was generated, rewound or branched before can change what chunk 12 draws, so replay is
exact by construction. All of it is drawn on the CPU in fp32; Philox on a GPU would differ.
"""

import hashlib

import torch
from torch import Tensor


def noise_for(seed: int, key: tuple[int | str, ...], shape: tuple[int, ...]) -> Tensor:
    """Unit Gaussian noise of `shape`, fp32 on the CPU, a pure function of its arguments.

    Args:
        seed: the user's integer.
        key: where the noise is used, for example ("chunk", 12, "step", 0).
        shape: of the tensor.
    """
    return torch.randn(shape, generator=rng_for(seed, key))


def rng_for(seed: int, key: tuple[int | str, ...]) -> torch.Generator:
    """A CPU generator that depends on `seed` and `key` alone."""
    digest = hashlib.sha256(repr((int(seed), *key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)

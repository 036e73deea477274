"""Noise as a function of the seed and its place in a take, the same on every device.

The noise of a chunk does not depend on what was generated, rewound or branched before, so replay is exact by
construction. It is drawn on the CPU in fp32, since a GPU's random number generator (Philox) would give other values.
"""

import hashlib

import torch
from torch import Tensor


def noise_for(seed: int, key: tuple[int | str, ...], shape: tuple[int, ...]) -> Tensor:
    """Unit Gaussian noise, fp32 on the CPU, as a pure function of the arguments.

    Args:
        seed: the user's integer.
        key: place of use, for example ("chunk", 12, "step", 0).
        shape: shape of the result.
    """
    return torch.randn(shape, generator=rng_for(seed, key))


def rng_for(seed: int, key: tuple[int | str, ...]) -> torch.Generator:
    """CPU random number generator that depends on `seed` and `key` alone."""
    digest = hashlib.sha256(repr((int(seed), *key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)

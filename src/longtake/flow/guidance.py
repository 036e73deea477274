"""Classifier-free guidance (Ho and Salimans 2022)."""

from torch import Tensor


def guide(cond: Tensor, uncond: Tensor, guidance_scale: float) -> Tensor:
    """uncond + w (cond - uncond); w = 1 is off. (CausVid's w on top of cond is w + 1 here.)"""
    return uncond + guidance_scale * (cond - uncond)

"""Classifier-free guidance (Ho and Salimans 2022)."""

from torch import Tensor


def guide(cond: Tensor, uncond: Tensor, guidance_scale: float) -> Tensor:
    """Guided velocity uncond + w (cond - uncond); w = 1 is off. CausVid's w is w - 1 in this convention."""
    return uncond + guidance_scale * (cond - uncond)

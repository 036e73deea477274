"""Metrics of a clip that need no judge: steadiness, motion, sharpness, colour. Clips are uint8 [f, h, w, 3].

VBench (Huang et al. 2024) measures smoothness and dynamics with networks for interpolation and optical flow; here, the
same quantities are measured without networks, so that they run anywhere. They rank models on one world and are not
VBench scores.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from longtake.core.shapes import Pictures
from longtake.flow.distortion import moving_pixels
from longtake.media.frames import from_pictures

BLOCK = 8  # side in pixels of the blocks of block matching
REACH = 6  # largest displacement in pixels that is searched
EDGE_PX = 2  # margin in pixels around moving pixels that counts as moving
LIVELIEST = 0.05  # share of the blocks, those that move most, that count for `dynamics` (VBench: of the pixels)


def flicker(clip: Pictures) -> float:
    """1 minus the mean absolute difference of successive frames, pixels in [0, 1] (VBench, temporal flickering)."""
    x = clip.float() / 255
    return 1 - (x[1:] - x[:-1]).abs().mean().item()


def smoothness(clip: Pictures) -> float:
    """1 minus the mean absolute difference of a frame from the mean of its neighbours.

    Even motion stays close to that mean, jumps do not (VBench, motion smoothness: by a network).
    """
    x = clip.float() / 255
    return 1 - (x[1:-1] - (x[:-2] + x[2:]) / 2).abs().mean().item()


def dynamics(clip: Pictures) -> float:
    """Motion of the blocks that move most, in pixels per frame, by block matching (VBench, dynamic degree: by RAFT)."""
    return torch.stack([_motion(a, b) for a, b in zip(clip[:-1:4], clip[1::4], strict=False)]).mean().item()


def sharpness(clip: Pictures) -> float:
    """Mean absolute response of the Laplacian on luma in [0, 1]."""
    x = luma(clip)[:, None]
    kernel = x.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    return functional.conv2d(x, kernel).abs().mean().item()


def moving_sharpness(clip: Pictures) -> float:
    """Mean absolute response of the Laplacian around moving pixels; over all pixels if nothing moves."""
    x = luma(clip)[:, None]
    moving = moving_pixels(from_pictures(clip))[0][:, None].float()
    around = functional.max_pool2d(moving, 2 * EDGE_PX + 1, 1, EDGE_PX) > 0
    kernel = x.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    response = functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), kernel).abs()
    return float((response[around] if bool(around.any()) else response).mean())


def contrast(clip: Pictures) -> float:
    """Standard deviation of luma within a frame, averaged over frames; luma in [0, 1]."""
    return luma(clip).flatten(1).std(1).mean().item()


def saturation(clip: Pictures) -> float:
    """Largest minus smallest of red, green and blue, averaged over pixels, in [0, 1]."""
    x = clip.float() / 255
    return (x.amax(3) - x.amin(3)).mean().item()


def brightness(clip: Pictures) -> float:
    """Mean luma, in [0, 1]."""
    return luma(clip).mean().item()


def luma(clip: Pictures) -> Float[Tensor, "f h w"]:
    """BT.601 luma in [0, 1]."""
    return clip.float() @ clip.new_tensor([0.299, 0.587, 0.114], dtype=torch.float32) / 255


def _motion(before: Tensor, after: Tensor) -> Tensor:
    """Mean displacement of the blocks that move most between two frames; among equal matches, the shortest is taken."""
    a, b = luma(before[None])[:, None], luma(after[None])[:, None]
    moved = functional.pad(b, (REACH, REACH, REACH, REACH), mode="replicate")
    height, width = a.shape[2:]
    steps = sorted(
        ((dy, dx) for dy in range(-REACH, REACH + 1) for dx in range(-REACH, REACH + 1)),
        key=lambda s: s[0] ** 2 + s[1] ** 2,
    )
    costs = torch.cat(
        [
            functional.avg_pool2d(
                (moved[:, :, REACH + dy : REACH + dy + height, REACH + dx : REACH + dx + width] - a).abs(), BLOCK
            )
            for dy, dx in steps
        ]
    )
    best = (costs + 1e-4 * torch.arange(len(steps))[:, None, None, None] / len(steps)).argmin(0).flatten()
    lengths = torch.tensor(steps, dtype=torch.float32).norm(dim=1)[best]
    return lengths.topk(max(1, round(LIVELIEST * len(lengths)))).values.mean()

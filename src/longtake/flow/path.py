"""The straight path between data and noise (rectified flow; Liu et al. 2023, Lipman et al. 2023).

    x_t = (1 - sigma) x0 + sigma eps        v = dx_t/dsigma = eps - x0

All other modules convert between x0, x_t, eps and v by these functions only. `sigma` is in [0, 1], where 1 is pure
noise; at sigma = 0, `add_noise` and `x0_from_velocity` are the exact identity. All arithmetic is elementwise; `sigma`
of shape [b, f] gives each latent frame its own noise level.
"""

from einops import rearrange
from torch import Tensor

from longtake.core.shapes import Latent, Sigma


def per_frame(sigma: Sigma) -> Tensor:
    """Reshape sigma [b, f] to [b, 1, f, 1, 1], to broadcast over a latent [b, c, f, h, w]."""
    return rearrange(sigma, "b f -> b 1 f 1 1")


def add_noise(x0: Latent, eps: Latent, sigma: Sigma) -> Latent:
    """Noisy latent x_t = (1 - sigma) x0 + sigma eps."""
    s = per_frame(sigma)
    return (1 - s) * x0 + s * eps


def velocity(x0: Latent, eps: Latent) -> Latent:
    """Velocity v = eps - x0, the prediction target of the network."""
    return eps - x0


def x0_from_velocity(x_t: Latent, v: Latent, sigma: Sigma) -> Latent:
    """Clean latent x0 = x_t - sigma v."""
    return x_t - per_frame(sigma) * v


def velocity_from_x0(x_t: Latent, x0: Latent, sigma: Sigma) -> Latent:
    """Velocity v = (x_t - x0) / sigma; sigma must be positive."""
    return (x_t - x0) / per_frame(sigma)

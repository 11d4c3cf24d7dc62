"""How far a reconstruction is from its image."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_squared_error(x: Tensor, x_hat: Tensor) -> Tensor:
    """Mean squared error of each sample and channel over its voxels, (B, C, ...) → (B, C)."""
    return (x.float() - x_hat.float()).square().flatten(2).mean(2)


def psnr(x: Tensor, x_hat: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each sample and channel, (B, C, ...) → (B, C).

    10 log10(peak^2 / MSE). The peak is the channel's own range in ``x``: z-scored MRI has no
    maximum of its own. A perfect reconstruction gives infinity.
    """
    voxels = x.float().flatten(2)
    peak = voxels.amax(2) - voxels.amin(2)
    return 10 * torch.log10(peak.square() / mean_squared_error(x, x_hat))


def squared_error_within(x: Tensor, x_hat: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of squared errors where ``mask`` holds, and the number of voxels summed.

    Args:
        x: (B, C, ...).
        x_hat: shaped like ``x``.
        mask: bool, (B, 1, ...); one mask for all channels.

    Returns:
        Two scalars, float64: their quotient is a mean over any number of batches.
    """
    inside = mask.expand_as(x)
    error = (x.double() - x_hat.double()).square()
    return error[inside].sum(), inside.sum().double()

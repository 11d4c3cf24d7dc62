"""Anomaly maps: where the VAE cannot explain the image."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def residual_map(x: Tensor, x_hat: Tensor) -> Tensor:
    """|x - x_hat| averaged over channels, (B, C, ...) → (B, ...)."""
    return (x.float() - x_hat.float()).abs().mean(1)


def smoothed_map(heatmap: Tensor, sigma: float) -> Tensor:
    """A map convolved with a Gaussian cut at three sigma, (B, ...) → the same; 2D or 3D.

    Single pixels are noise; what has the size of a lesion stays (Baur et al. 2021,
    arXiv:2004.03271). Borders repeat the outermost value, so that a constant map stays constant.

    Args:
        heatmap: (B, H, W) or (B, D, H, W).
        sigma: in pixels or voxels of the map; 0 returns the map as it is.
    """
    if sigma == 0:
        return heatmap
    reach = math.ceil(3 * sigma)
    steps = torch.arange(-reach, reach + 1, device=heatmap.device, dtype=torch.float32)
    kernel = torch.exp(-steps.square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    smooth = heatmap.float()
    for axis in range(1, heatmap.dim()):
        lines = smooth.movedim(axis, -1)  # (B, ..., L)
        padded = functional.pad(
            lines.reshape(-1, 1, lines.shape[-1]), (reach, reach), mode="replicate"
        )
        convolved = functional.conv1d(padded, kernel.view(1, 1, -1))
        smooth = convolved.reshape(lines.shape).movedim(-1, axis)
    return smooth.contiguous()

"""Anomaly maps: where the VAE cannot explain the image."""

from __future__ import annotations

import torch
from torch import Tensor


def residual_map(x: Tensor, x_hat: Tensor) -> Tensor:
    """|x - x_hat| averaged over channels, (B, C, ...) → (B, ...)."""
    return (x.float() - x_hat.float()).abs().mean(1)


def heat_scale(maps: Tensor, quantile: float = 0.995) -> float:
    """Top of a fixed colour scale: a quantile of residuals of *healthy* tissue.

    Scaling each picture by its own maximum would light up every healthy one.

    Args:
        maps: residuals of healthy tissue, any shape.
        quantile: share of the residuals that stay below the top, in (0, 1).
    """
    values = maps.flatten()
    rank = max(1, round(quantile * values.numel()))
    return float(torch.kthvalue(values, rank).values)

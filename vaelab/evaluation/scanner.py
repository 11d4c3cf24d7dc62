"""What another scanner does to an image: coarser slices, a bias field, other contrast."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def coarser(x: Tensor, size: float, spacing: Sequence[float]) -> Tensor:
    """Images as if scanned with voxels of ``size`` along the last axis, on the grid they had.

    A slice is the mean over its thickness, by area; between slices it is linear.

    Args:
        x: (B, C, D, H, W) or (B, C, H, W).
        size: in the unit of ``spacing``; no more than that of the last axis changes nothing.
        spacing: size of a voxel along each axis.
    """
    length = x.shape[-1]
    slices = max(round(length * spacing[-1] / size), 1)
    if slices >= length:
        return x
    rows = x.flatten(0, -2)[:, None]  # (N, 1, length)
    thick = F.adaptive_avg_pool1d(rows, slices)
    return F.interpolate(thick, length, mode="linear", align_corners=False).reshape(x.shape)


def bias_fields(
    count: int, shape: Sequence[int], strength: float, generator: torch.Generator
) -> Tensor:
    """Smooth factors about 1, (count, 1, ...): exp of a field that three points an axis define.

    Args:
        count: of fields.
        shape: of an image.
        strength: standard deviation of the field's logarithm at each of those points.
        generator: what to draw with.
    """
    coarse = torch.randn(count, 1, *[3] * len(shape), generator=generator)
    mode = "trilinear" if len(shape) == 3 else "bilinear"
    smooth = F.interpolate(coarse, tuple(shape), mode=mode, align_corners=True)
    return torch.exp(strength * smooth)


def with_contrast(above: Tensor, exponent: Tensor) -> Tensor:
    """Values from 0 on raised to a power, between 0 and the largest of each channel.

    Args:
        above: (B, C, ...).
        exponent: (B, C, 1, ...); 1 changes nothing.
    """
    top = above.amax(tuple(range(2, above.dim())), keepdim=True).clamp_min(1e-12)
    return top * (above.clamp_min(0) / top) ** exponent

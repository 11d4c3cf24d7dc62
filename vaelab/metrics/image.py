"""Quality of a reconstruction: squared error, PSNR, SSIM, whole or within a mask."""

from __future__ import annotations

import torch
from monai.metrics.regression import compute_ssim_and_cs
from torch import Tensor

SSIM_WINDOW = 11
"""Side of the Gaussian window in pixels or voxels (Wang et al. 2004), sigma 1.5."""
QUANTILE_VALUES = 2**16
FAINT = 1e-3
"""Share of a channel's range below which a voxel is background; resampling leaves a faint rim."""


def mean_squared_error(x: Tensor, x_hat: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared error of each sample and channel over its voxels, (B, C, ...) → (B, C).

    Args:
        x: (B, C, ...).
        x_hat: shaped like ``x``.
        mask: bool, (B, 1, ...): only voxels where it is true; NaN where there are none.
    """
    return masked_mean((x.float() - x_hat.float()).square(), mask)


def psnr(x: Tensor, x_hat: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio in dB of each sample and channel, (B, C, ...) → (B, C).

    10 log10(peak^2 / MSE). The peak is the channel's own range in the whole of ``x``, whatever the
    mask: z-scored MRI has no maximum of its own. A perfect reconstruction gives infinity.
    """
    _, span = _range(x)
    return 10 * torch.log10(span.square() / mean_squared_error(x, x_hat, mask))


def similarity_of_windows(x: Tensor, x_hat: Tensor) -> Tensor:
    """Structural similarity (SSIM) of each window, at most 1; no unit.

    Wang et al. 2004 by MONAI, Gaussian window of 11, valid windows only. Both images are scaled so
    that the channel's range in ``x`` becomes 0 to 1, since the luminance term needs intensities
    from 0 up, which z-scored MRI does not have. NaN for a channel that is constant.

    Args:
        x: (B, C, ...), each side at least ``SSIM_WINDOW``.
        x_hat: shaped like ``x``.

    Returns:
        (B, C, ...), each side shorter by ``SSIM_WINDOW`` - 1.
    """
    dims = x.dim() - 2
    low, span = (part.reshape(*part.shape, *[1] * dims) for part in _range(x))
    similarity, _ = compute_ssim_and_cs(
        (x_hat.float() - low) / span,
        (x.float() - low) / span,
        dims,
        [SSIM_WINDOW] * dims,
        [1.5] * dims,
    )
    return similarity


def mean_of_windows(similarity: Tensor, mask: Tensor | None) -> Tensor:
    """SSIM of each sample and channel, (B, C): the mean over windows centred within the mask.

    Args:
        similarity: of ``similarity_of_windows``.
        mask: bool, (B, 1, ...), of the images' size; None takes all windows.
    """
    if mask is not None:
        rim = SSIM_WINDOW // 2
        for axis in range(2, mask.dim()):
            mask = mask.narrow(axis, rim, mask.shape[axis] - 2 * rim)
    return masked_mean(similarity, mask)


def foreground(x: Tensor) -> Tensor:
    """Mask of the foreground, (B, C, ...) → bool (B, 1, ...): the brain in skull-stripped volumes.

    Background has the smallest value of each channel, as 0 outside the brain has after z-scoring;
    foreground is what is above it in any channel. Padding, exactly 0 in all channels, is not
    foreground. In volumes with a skull the mask is the head.
    """
    low, span = (part.reshape(*part.shape, *[1] * (x.dim() - 2)) for part in _range(x))
    bright = (x.float() > low + FAINT * span).any(1, keepdim=True)
    return bright & (x != 0).any(1, keepdim=True)


def squared_error_within(x: Tensor, x_hat: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of squared errors within ``mask``, and the number of values summed.

    Args:
        x: (B, C, ...).
        x_hat: shaped like ``x``.
        mask: bool, (B, 1, ...); one mask for all channels.

    Returns:
        Two scalars, float64; sums over batches have the mean squared error as their quotient.
    """
    inside = mask.expand_as(x)
    error = (x.double() - x_hat.double()).square()
    return error[inside].sum(), inside.sum().double()


def intensity_statistics(x: Tensor) -> Tensor:
    """What a machine leaves on intensities, whatever the patient: (B, C, ...) → (B, C, 8).

    Mean, standard deviation, the mean absolute difference of neighbours along the last axis, which
    is large for a sharp or noisy image, and quantiles 0.05, 0.25, 0.5, 0.75 and 0.95. Of
    large images quantiles are those of an even choice of ``QUANTILE_VALUES``.
    """
    values = x.float().flatten(2)
    step = -(-values.shape[2] // QUANTILE_VALUES)
    shares = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    quantiles = values[:, :, ::step].quantile(shares, 2).movedim(0, 2)  # (B, C, 5)
    sharpness = x.float().diff(dim=-1).abs().flatten(2).mean(2)
    moments = torch.stack([values.mean(2), values.std(2), sharpness], 2)
    return torch.cat([moments, quantiles], 2)


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of each sample and channel within a mask, (B, C, ...) → (B, C); NaN if it is empty."""
    if mask is None:
        return values.flatten(2).mean(2)
    # Not a product: 0 times the NaN of a voxel outside would be NaN.
    inside = torch.where(mask, values, torch.zeros_like(values)).flatten(2).sum(2)
    return inside / mask.flatten(2).sum(2)


def _range(x: Tensor) -> tuple[Tensor, Tensor]:
    """Minimum and maximum - minimum of each sample and channel, both (B, C), float32."""
    voxels = x.float().flatten(2)
    low = voxels.amin(2)
    return low, voxels.amax(2) - low

"""The same subject scanned again: small changes that a latent space should not mind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vaelab.errors import UserError
from vaelab.evaluation.scanner import bias_fields, coarser, with_contrast

KEYS = ("shift", "rotation_deg", "gain", "noise", "slice_size", "bias", "contrast")


@dataclass(frozen=True)
class Rescan:
    """Another position, gain and noise of each image of a batch, (B, C, ...).

    First the position: all channels of an image are turned about its centre and shifted together,
    with linear interpolation; what comes in from outside repeats the edge. Then gain and noise.
    Interpolation averages neighbours, and with them the noise of the first scan.

    Background has neither gain nor noise: noise there would be nothing that the network has ever
    seen. Background is what has the lowest value of its channel, or is exactly 0 in all channels:
    padding, and stripped volumes of which only the rest was standardised.

    Args:
        shift: standard deviation along each axis, in mm where voxels have a size, else in pixels.
        rotation_deg: standard deviation about each axis, in degrees; images have one axis.
        gain: standard deviation of a factor on each channel's distance from its lowest value.
        noise: standard deviation of Gaussian noise, in standard deviations of the channel.
        slice_size: of the second scan along the last axis, in the unit of ``shift``; up to that of
            the first it changes nothing.
        bias: standard deviation of the logarithm of a smooth factor on all channels.
        contrast: standard deviation of the logarithm of an exponent on each channel.
        site: with a number, bias and contrast are drawn from it, the same for all images: the
            signature of one other scanner. None draws them anew for each.

    Raises:
        UserError: for a negative value, or when nothing would change.
    """

    shift: float = 1.0
    rotation_deg: float = 1.0
    gain: float = 0.05
    noise: float = 0.05
    slice_size: float = 0.0
    bias: float = 0.0
    contrast: float = 0.0
    site: int | None = None

    def __post_init__(self) -> None:
        for key in KEYS:
            value = getattr(self, key)
            if not 0 <= value < math.inf:
                raise UserError(
                    f"task.rescan.{key}={value}: a number from 0 on is needed; 0 is off"
                )
        if not any(getattr(self, key) for key in KEYS):
            raise UserError(
                f"task.rescan: {', '.join(KEYS)} are all 0, so that a second scan would be the "
                "first; try shift=1"
            )

    def __call__(
        self, x: Tensor, generator: torch.Generator, spacing: Sequence[float] | None = None
    ) -> Tensor:
        """A second scan of each image.

        Args:
            x: images on the CPU, (B, C, ...).
            generator: what to draw with.
            spacing: size of a voxel in mm, for each axis; None measures in pixels.
        """
        axes = tuple(range(2, x.dim()))
        lowest = x.amin(axes, keepdim=True)
        spread = x.std(axes, keepdim=True)
        inside = (x > lowest) & (x != 0).any(1, keepdim=True)
        # From the lowest, because zeros alone are interpolated without a rounding error.
        both = torch.cat([x - lowest, inside.to(x)], 1)
        above, share = self._elsewhere(both, generator, spacing).chunk(2, 1)
        above = self._by_another_scanner(above, generator, spacing)
        per_channel = (len(x), x.shape[1], *[1] * len(axes))
        gain = 1 + self.gain * torch.randn(per_channel, generator=generator)
        noise = self.noise * torch.randn(x.shape, generator=generator)
        return lowest + torch.where(share > 0, gain * above + spread * noise, above)

    def _by_another_scanner(
        self, above: Tensor, generator: torch.Generator, spacing: Sequence[float] | None
    ) -> Tensor:
        shape = above.shape[2:]
        if self.slice_size:
            above = coarser(above, self.slice_size, spacing or [1.0] * len(shape))
        draw, count = generator, len(above)
        if self.site is not None:
            draw, count = torch.Generator().manual_seed(self.site), 1
        if self.bias:
            above = above * bias_fields(count, shape, self.bias, draw)
        if self.contrast:
            exponents = torch.randn(count, above.shape[1], *[1] * len(shape), generator=draw)
            above = with_contrast(above, torch.exp(self.contrast * exponents))
        return above

    def _elsewhere(
        self, x: Tensor, generator: torch.Generator, spacing: Sequence[float] | None
    ) -> Tensor:
        dims = x.dim() - 2
        shift = self.shift * torch.randn(len(x), dims, generator=generator)
        planes = dims * (dims - 1) // 2
        angles = self.rotation_deg * torch.randn(len(x), planes, generator=generator)
        if not (self.shift or self.rotation_deg):
            return x
        return moved(x, shift, angles, spacing or [1.0] * dims)


def moved(x: Tensor, shift: Tensor, angles: Tensor, spacing: Sequence[float]) -> Tensor:
    """Images turned about their centre, then shifted, by linear interpolation.

    Args:
        x: (B, C, D, H, W) or (B, C, H, W).
        shift: along each axis, (B, 3) or (B, 2), in the unit of ``spacing``.
        angles: of the rotation vector, (B, 3) about D, H and W, or (B, 1) from H towards W, in
            degrees.
        spacing: size of a voxel along each axis.
    """
    turn = torch.linalg.matrix_exp(_generator_of(torch.deg2rad(angles)))  # (B, dims, dims)
    # Half the field of view: in grid_sample's coordinates, which list the last axis first, the
    # image reaches from -1 to 1.
    half = torch.tensor([n * step / 2 for n, step in zip(x.shape[2:], spacing, strict=True)])
    back = turn.mT  # where a voxel's content was before: R^T (p - t)
    linear = back * half / half[:, None]
    offset = -(back @ shift[..., None]) / half[:, None]
    theta = torch.cat([linear.flip(1, 2), offset.flip(1)], 2)  # (B, dims, dims + 1)
    grid = F.affine_grid(theta.to(x), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _generator_of(angles: Tensor) -> Tensor:
    """Skew-symmetric matrices, (B, n, n), whose exponential turns by ``angles`` in radians."""
    zero = torch.zeros_like(angles[:, 0])
    if angles.shape[1] == 1:
        a = angles[:, 0]
        rows = [zero, -a, a, zero]
    else:
        d, h, w = angles.unbind(1)
        rows = [zero, -w, h, w, zero, -d, -h, d, zero]
    side = math.isqrt(len(rows))
    return torch.stack(rows, 1).reshape(-1, side, side)

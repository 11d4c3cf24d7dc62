"""The same subject scanned again: small changes that a latent space should not mind."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vaelab.errors import UserError


@dataclass(frozen=True)
class Rescan:
    """Random shift, gain and noise of a batch, (B, C, ...), drawn for each image.

    What has the smallest value of its channel, the background of a stripped volume, keeps it: noise
    there would be nothing that the network has ever seen.

    Args:
        shift: up to so many voxels or pixels along each axis, whole ones; edges are repeated.
        gain: standard deviation of a factor on each channel's distance from its background.
        noise: standard deviation of Gaussian noise, in standard deviations of the channel.

    Raises:
        UserError: for a negative value, or when nothing would change.
    """

    shift: int = 1
    gain: float = 0.05
    noise: float = 0.05

    def __post_init__(self) -> None:
        for key in ("shift", "gain", "noise"):
            if getattr(self, key) < 0:
                value = getattr(self, key)
                raise UserError(f"task.rescan.{key}={value}: cannot be negative; 0 is off")
        if not (self.shift or self.gain or self.noise):
            raise UserError(
                "task.rescan: shift, gain and noise are all 0, so that a second scan would be the "
                "first; try shift=1"
            )

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A second scan of each image; the generator lives on the CPU."""
        axes = tuple(range(2, x.dim()))
        background = x.amin(axes, keepdim=True)
        spread = x.std(axes, keepdim=True)
        tissue = x > background
        per_channel = (len(x), x.shape[1], *[1] * len(axes))
        gain = 1 + self.gain * torch.randn(per_channel, generator=generator).to(x)
        noise = self.noise * torch.randn(x.shape, generator=generator).to(x)
        changed = background + gain * (x - background) + spread * noise
        return self._shifted(torch.where(tissue, changed, x), generator)

    def _shifted(self, x: Tensor, generator: torch.Generator) -> Tensor:
        if not self.shift:
            return x
        dims, room = x.dim() - 2, self.shift
        padded = F.pad(x, [room] * 2 * dims, mode="replicate")
        starts = torch.randint(0, 2 * room + 1, (len(x), dims), generator=generator).tolist()
        return torch.stack(
            [
                image[(..., *(slice(s, s + n) for s, n in zip(start, x.shape[2:], strict=True)))]
                for image, start in zip(padded, starts, strict=True)
            ]
        )

"""Tumour volume and place, read from the latents by a head that belongs to the objective."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vaelab.objective.contract import Step
from vaelab.objective.elbo import compute_elbo


class SemiSupervised(nn.Module):
    """ELBO plus the squared error of log volume and centre of ``seg``, predicted from mu.

    Args:
        z_dim: of the model.
        weight: of the prediction's error.
    """

    def __init__(self, z_dim: int, weight: float = 10.0) -> None:
        super().__init__()
        self.weight = weight
        self.head = nn.Linear(z_dim, 4)

    def forward(self, batch: Mapping[str, Any], output: Any, step: Step) -> dict[str, Tensor]:
        """Entries beside the three: ``factors``, the error of the predictions."""
        sums = compute_elbo(batch["image"], output.x_hat, output.mu, output.logvar, step.beta)
        with torch.autocast(output.mu.device.type, enabled=False):
            error = (self.head(output.mu.float()) - factors(batch["seg"])).square().sum()
        return {**sums, "loss": sums["loss"] + self.weight * error, "factors": error}


def factors(seg: Tensor) -> Tensor:
    """Log volume in voxels and centre in [-1, 1], (B, 1, D, H, W) → (B, 4)."""
    tumour = (seg[:, 0] > 0).float()
    volume = tumour.flatten(1).sum(1)
    places = []
    for axis, side in enumerate(tumour.shape[1:]):
        shape = [1, 1, 1, 1]
        shape[axis + 1] = side
        line = torch.linspace(-1, 1, side, device=seg.device).reshape(shape)
        places.append((tumour * line).flatten(1).sum(1) / volume.clamp(min=1))
    return torch.stack([volume.log1p(), *places], 1)

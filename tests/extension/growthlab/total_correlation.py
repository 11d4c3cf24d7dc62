"""β-TCVAE with a spatial broadcast decoder: the model returns z, the loss needs N."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vaelab.models.encoder_decoder import EncoderDecoderVAE
from vaelab.models.vae import exportable
from vaelab.objective.contract import Step
from vaelab.objective.elbo import compute_elbo


class BroadcastOutput(NamedTuple):
    """``VAEOutput`` and the z that was decoded."""

    x_hat: Tensor
    mu: Tensor
    logvar: Tensor
    z: Tensor


exportable(BroadcastOutput)


class BroadcastDecoder(nn.Module):
    """Tiles z over the grid beside its coordinates (Watters et al. 2019, arXiv:1901.07017)."""

    def __init__(self, channels: int, filters: int, z_dim: int, size: Sequence[int]) -> None:
        super().__init__()
        axes = [torch.linspace(-1, 1, side) for side in size]
        self.register_buffer("coordinates", torch.stack(torch.meshgrid(*axes, indexing="ij")))
        self.layers = nn.Sequential(
            nn.Conv3d(z_dim + len(size), filters, 3, padding=1),
            nn.ReLU(),
            nn.Conv3d(filters, channels, 3, padding=1),
        )

    def forward(self, z: Tensor) -> Tensor:
        """(B, z) → (B, C, D, H, W)."""
        tiled = z[:, :, None, None, None].expand(-1, -1, *self.coordinates.shape[1:])
        grid = self.coordinates.expand(len(z), *self.coordinates.shape)
        x_hat: Tensor = self.layers(torch.cat([tiled, grid.to(tiled.dtype)], 1))
        return x_hat


class BroadcastVAE(EncoderDecoderVAE):
    """A small encoder and a broadcast decoder of volumes."""

    def __init__(
        self, input_channels: int, roi_size: Sequence[int], z_dim: int = 8, filters: int = 4
    ) -> None:
        encoder = nn.Sequential(
            nn.Conv3d(input_channels, filters, 4, stride=4), nn.ReLU(), nn.Flatten()
        )
        super().__init__(
            encoder=encoder,
            decoder=BroadcastDecoder(input_channels, filters, z_dim, roi_size),
            features=filters * math.prod(side // 4 for side in roi_size),
            z_dim=z_dim,
        )

    def forward(self, x: Tensor) -> BroadcastOutput:  # type: ignore[override]
        """Reconstruct a batch."""
        mu, logvar = self.encode(x)
        z = self.reparameterize(mu, logvar)
        return BroadcastOutput(self.decode(z), mu, logvar, z)


@dataclass(frozen=True)
class TotalCorrelation:
    """The β-TCVAE's loss by minibatch-weighted sampling (Chen et al. 2018, arXiv:1802.04942).

    Args:
        weight: of the total correlation; 1 is the ELBO.
    """

    weight: float = 6.0

    def __call__(self, batch: Mapping[str, Any], output: Any, step: Step) -> dict[str, Tensor]:
        """recon + beta · (mutual information + weight · total correlation + dimension-wise KL)."""
        sums = compute_elbo(batch["image"], output.x_hat, output.mu, output.logvar, step.beta)
        z, mu, logvar = (part.float() for part in (output.z, output.mu, output.logvar))
        # log q(z_i | x_j) of each unit, (B, B, z)
        gap = (z[:, None] - mu).square() / logvar.exp()
        conditional = -0.5 * (gap + logvar + math.log(2 * math.pi))
        size = math.log(len(z) * step.train_samples)
        joint = conditional.sum(2).logsumexp(1) - size
        marginals = (conditional.logsumexp(1) - size).sum(1)
        own = conditional.diagonal().T.sum(1)
        prior = -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)
        terms = {
            "mutual_information": (own - joint).sum(),
            "total_correlation": (joint - marginals).sum(),
            "dimension_wise_kl": (marginals - prior).sum(),
        }
        weights = (1.0, self.weight, 1.0)
        price = sum(w * term for w, term in zip(weights, terms.values(), strict=True))
        return {**sums, "loss": sums["recon"] + step.beta * price, **terms}

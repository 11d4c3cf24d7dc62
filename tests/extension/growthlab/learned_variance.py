"""A decoder that says how sure it is: one log-variance for each channel and voxel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vaelab.models.encoder_decoder import EncoderDecoderVAE
from vaelab.objective.contract import Step
from vaelab.objective.elbo import compute_elbo


class SureOutput(NamedTuple):
    """``VAEOutput`` and the decoder's own log-variance, shaped like the input."""

    x_hat: Tensor
    mu: Tensor
    logvar: Tensor
    noise_logvar: Tensor


class SureVAE(EncoderDecoderVAE):
    """A linear decoder with two outputs for each voxel, the mean and its log-variance."""

    def __init__(self, input_channels: int, roi_size: Sequence[int], z_dim: int = 8) -> None:
        shape = (2 * input_channels, *roi_size)
        pooled = input_channels * math.prod(side // 4 for side in roi_size)
        super().__init__(
            encoder=nn.Sequential(nn.AvgPool3d(4), nn.Flatten()),
            decoder=nn.Sequential(nn.Linear(z_dim, math.prod(shape)), nn.Unflatten(1, shape)),
            features=pooled,
            z_dim=z_dim,
        )

    def decode(self, z: Tensor) -> Tensor:
        """The mean alone, (B, z) → (B, C, D, H, W)."""
        return self.decoder(z).chunk(2, 1)[0]

    def forward(self, x: Tensor) -> SureOutput:  # type: ignore[override]
        """Reconstruct a batch."""
        mu, logvar = self.encode(x)
        x_hat, noise = self.decoder(self.reparameterize(mu, logvar)).chunk(2, 1)
        return SureOutput(x_hat, mu, logvar, 5 * torch.tanh(noise / 5))


def gaussian_nll(batch: Mapping[str, Any], output: Any, step: Step) -> dict[str, Tensor]:
    """A function may be an objective too: Gaussian negative log-likelihood, up to a constant."""
    sums = compute_elbo(batch["image"], output.x_hat, output.mu, output.logvar, step.beta)
    x, x_hat, noise = (t.float() for t in (batch["image"], output.x_hat, output.noise_logvar))
    nll = ((x - x_hat).square() * torch.exp(-noise) + noise).sum()
    return {**sums, "loss": nll + step.beta * sums["kl"], "nll": nll}

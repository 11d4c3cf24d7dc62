"""A variational autoencoder: encode, reparameterize, decode.

Kingma & Welling 2014 (arXiv:1312.6114). Written without a loss and without a dimension, so
that the 2D and the 3D model, and those still to come, share it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

# Variances from exp(-15) to exp(15) fit float32 with room for sums over a batch. The bound is
# smooth and not a clamp: past a clamp the KL has no gradient left to pull logvar back.
LOGVAR_BOUND = 15.0


class VAEOutput(NamedTuple):
    """What a VAE says of a batch."""

    x_hat: Tensor
    """Reconstruction, shaped like the input."""
    mu: Tensor
    """Posterior mean, (B, z), float32."""
    logvar: Tensor
    """Log of the posterior variance, (B, z), float32, within ±LOGVAR_BOUND."""


class VAE(nn.Module):
    """An encoder network, two linear heads, a decoder network.

    Args:
        encoder: (B, C, ...) → (B, features).
        decoder: (B, z_dim) → (B, C, ...).
        features: width of the encoder's output.
        z_dim: number of latent units.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, features: int, z_dim: int) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.encoder = encoder
        self.decoder = decoder
        self.mu_head = nn.Linear(features, z_dim)
        self.logvar_head = nn.Linear(features, z_dim)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and log-variance of a batch, both (B, z), float32."""
        h = self.encoder(x)
        # Float32 whatever the autocast: exp(logvar) overflows float16 from 11 on.
        with torch.autocast(device_type=x.device.type, enabled=False):
            h = h.float()
            mu = self.mu_head(h)
            logvar = self.logvar_head(h)
            logvar = logvar * torch.rsqrt(1 + (logvar / LOGVAR_BOUND).square())
        return mu, logvar

    def reparameterize(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """Z = mu + eps * exp(logvar / 2) with eps ~ N(0, I) while training; z = mu otherwise."""
        if not self.training:
            return mu
        eps = torch.randn_like(mu)
        return mu + eps * torch.exp(0.5 * logvar)

    def decode(self, z: Tensor) -> Tensor:
        """Mean of the likelihood at z, (B, z) → (B, C, ...)."""
        x_hat: Tensor = self.decoder(z)
        return x_hat

    def forward(self, x: Tensor) -> VAEOutput:
        """Reconstruct a batch; sampled in training mode, deterministic in evaluation mode."""
        mu, logvar = self.encode(x)
        x_hat = self.decode(self.reparameterize(mu, logvar))
        return VAEOutput(x_hat, mu, logvar)

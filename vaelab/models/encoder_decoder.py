"""A VAE of an encoder network, two linear heads and a decoder network, of any dimension."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vaelab.models.vae import VAE, bounded


class EncoderDecoderVAE(VAE):
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
            return self.mu_head(h), bounded(self.logvar_head(h))

    def decode(self, z: Tensor) -> Tensor:
        """Mean of the likelihood at z, (B, z) → (B, C, ...)."""
        x_hat: Tensor = self.decoder(z)
        return x_hat

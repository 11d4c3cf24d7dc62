"""The contract of a model: a variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114).

It fixes neither a loss nor a network nor the number of dimensions, so that images and volumes share
it. ``vaelab.models.encoder_decoder`` is the usual way to write one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree

# Variances from exp(-15) to exp(15) fit float32 with room for sums over a batch. The bound is
# smooth and not a clamp: past a clamp the KL has no gradient left to pull logvar back.
LOGVAR_BOUND = 15.0


class VAEOutput(NamedTuple):
    """The output of a VAE for a batch.

    A model with further outputs returns its own NamedTuple that begins with these three fields, so
    read them by name. Call ``exportable`` on its class, as below, for ``torch.export.save``.
    """

    x_hat: Tensor
    """Reconstruction, shaped like the input."""
    mu: Tensor
    """Posterior mean, (B, z), float32."""
    logvar: Tensor
    """Log of the posterior variance, (B, z), float32, within ±LOGVAR_BOUND."""


def exportable(output: type[tuple[Any, ...]]) -> None:
    """Register a NamedTuple for ``torch.export.save`` under its qualified name.

    PyTorch names no public function for it (2.14): ``torch.export.register_dataclass`` takes
    dataclasses alone.
    """
    name = f"{output.__module__}.{output.__qualname__}"
    _pytree._register_namedtuple(output, serialized_type_name=name)


exportable(VAEOutput)


class VAE(nn.Module):
    """A model that encodes a batch to a diagonal Gaussian posterior and decodes z.

        q(z|x) = N(mu, diag exp(logvar)),   z = mu + exp(logvar / 2) * eps,   eps ~ N(0, I)

    In evaluation mode z = mu. A subclass implements ``encode`` and ``decode`` and sets ``z_dim``::

        class LinearVAE(VAE):
            def __init__(self, z_dim: int = 2) -> None:
                super().__init__()
                self.z_dim = z_dim
                self.encoder, self.decoder = nn.Linear(784, 2 * z_dim), nn.Linear(z_dim, 784)

            def encode(self, x):
                mu, logvar = self.encoder(x.flatten(1)).float().chunk(2, dim=1)
                return mu, bounded(logvar)

            def decode(self, z):
                return self.decoder(z).unflatten(1, (1, 28, 28))

        x_hat, mu, logvar = LinearVAE()(torch.rand(8, 1, 28, 28))

    ``vaelab.testing.check_model`` tests it. A model whose forward pass computes more returns a
    longer NamedTuple; see ``VAEOutput``.
    """

    z_dim: int
    """Number of latent units."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and log-variance of a batch, both (B, z), float32."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> Tensor:
        """Mean of the likelihood at z, (B, z) → (B, C, ...)."""
        raise NotImplementedError

    def reparameterize(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """Sample z in training mode; mu itself in evaluation mode, (B, z)."""
        if not self.training:
            return mu
        eps = torch.randn_like(mu)
        return mu + eps * torch.exp(0.5 * logvar)

    def forward(self, x: Tensor) -> VAEOutput:
        """Reconstruct a batch; sampled in training mode, deterministic in evaluation mode."""
        mu, logvar = self.encode(x)
        x_hat = self.decode(self.reparameterize(mu, logvar))
        return VAEOutput(x_hat, mu, logvar)


def bounded(logvar: Tensor) -> Tensor:
    """``logvar / sqrt(1 + (logvar / LOGVAR_BOUND)^2)``, within ±LOGVAR_BOUND for any input."""
    return logvar * torch.rsqrt(1 + (logvar / LOGVAR_BOUND).square())

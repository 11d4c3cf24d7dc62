"""The contract of a model: a variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114).

Written without a loss, a dimension and a network, so that the 2D and the 3D model, and those still
to come, share it. ``vaelab.models.encoder_decoder`` is the usual way to fulfil it.
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
    """What a VAE says of a batch.

    A model that has more to say returns a NamedTuple of its own that begins with these three, so
    read them by name. Call ``exportable`` on its class, as below, for ``torch.export.save``.
    """

    x_hat: Tensor
    """Reconstruction, shaped like the input."""
    mu: Tensor
    """Posterior mean, (B, z), float32."""
    logvar: Tensor
    """Log of the posterior variance, (B, z), float32, within ±LOGVAR_BOUND."""


def exportable(output: type[tuple[Any, ...]]) -> None:
    """Have ``torch.export.save`` know a NamedTuple by its qualified name.

    PyTorch names no public function for it (2.14): ``torch.export.register_dataclass`` takes
    dataclasses alone.
    """
    name = f"{output.__module__}.{output.__qualname__}"
    _pytree._register_namedtuple(output, serialized_type_name=name)


exportable(VAEOutput)


class VAE(nn.Module):
    """A model that encodes a batch to a diagonal Gaussian posterior and decodes z.

    A subclass brings ``encode`` and ``decode``, and sets ``z_dim``. One whose forward pass does
    more returns a longer NamedTuple; see ``VAEOutput``.
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
        """Z = mu + eps * exp(logvar / 2) with eps ~ N(0, I) while training; z = mu otherwise."""
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
    """Log-variances of any size, smoothly brought within ±LOGVAR_BOUND."""
    return logvar * torch.rsqrt(1 + (logvar / LOGVAR_BOUND).square())

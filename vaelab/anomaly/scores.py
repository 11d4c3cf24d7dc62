"""Anomaly scores: (x, what the VAE says of x) → (B,), larger is more abnormal.

A score is any callable of that signature. To add one, write a class like these and a file
in ``conf/score``.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from vaelab.models.vae import VAEOutput
from vaelab.objective.elbo import kl_divergence, squared_error


class Score(Protocol):
    """What every score is."""

    def __call__(self, x: Tensor, output: VAEOutput) -> Tensor:
        """Score of each sample, (B,)."""
        ...


class SquaredError:
    """Squared reconstruction error summed over the image (An & Cho 2015, with z = mu)."""

    def __call__(self, x: Tensor, output: VAEOutput) -> Tensor:
        """Score of each sample, (B,)."""
        return squared_error(x, output.x_hat)


class KL:
    """KL of the posterior to the prior in nats (Zimmerer et al. 2018, arXiv:1812.05941)."""

    def __call__(self, x: Tensor, output: VAEOutput) -> Tensor:
        """Score of each sample, (B,)."""
        return kl_divergence(output.mu, output.logvar)


class NegativeELBO:
    """Squared error plus ``beta`` times the KL: minus the bound that was trained, per sample.

    Args:
        beta: weight of the KL.
    """

    def __init__(self, beta: float = 1.0) -> None:
        self.beta = beta

    def __call__(self, x: Tensor, output: VAEOutput) -> Tensor:
        """Score of each sample, (B,)."""
        kl = kl_divergence(output.mu, output.logvar)
        return squared_error(x, output.x_hat) + self.beta * kl

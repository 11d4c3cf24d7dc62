"""What ``task=evaluate`` says of the latent space: information, prior, likelihood."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from vaelab.metrics.decomposition import kl_decomposition
from vaelab.metrics.likelihood import (
    VARIANCE,
    gaussian_log_likelihood,
    importance_weighted_bound,
    log_importance_weight,
)
from vaelab.metrics.prior_match import (
    covariance_distance,
    mean_norm,
    mmd_squared,
    sample_aggregate,
)
from vaelab.models.vae import VAE

POINTS = 2048
"""Draws of z behind an estimate, and samples at most in the mixture that q(z) is."""


def latent_diagnostics(mu: Tensor, logvar: Tensor, seed: int) -> dict[str, Any]:
    """The KL decomposition and the distance of the aggregate posterior from the prior.

    Of more than ``POINTS`` samples an even choice is taken.

    Args:
        mu: posterior means, (N, z) with N at least 2.
        logvar: log posterior variances, (N, z).
        seed: of the draws.
    """
    rows = torch.linspace(0, len(mu) - 1, min(len(mu), POINTS)).round().long()
    mu, logvar = mu[rows], logvar[rows]
    draw = torch.Generator().manual_seed(seed)
    parts = kl_decomposition(mu, logvar, draw, draws=math.ceil(POINTS / len(mu)))
    prior = torch.randn(POINTS, mu.shape[1], generator=draw)
    return {
        "kl_decomposition_nats": {
            **parts._asdict(),
            "mutual_information_limit": math.log(len(mu)),
            "samples": len(mu),
        },
        "aggregate_posterior": {
            "mean_norm_prior_sd": mean_norm(mu),
            "covariance_distance_prior_variance": covariance_distance(mu, logvar),
            "mmd_squared": mmd_squared(sample_aggregate(mu, logvar, POINTS, draw), prior),
        },
    }


class ImportanceWeights:
    """Weights of the importance-weighted bound, batch by batch.

    One z of each sample is decoded at a time, so that the memory is that of a forward pass.

    Args:
        model: a trained VAE in evaluation mode.
        device: where it computes.
        samples: K, z drawn for each sample; 0 switches the bound off.
        seed: of the draws.
    """

    def __init__(self, model: VAE, device: torch.device, samples: int, seed: int) -> None:
        self.model = model
        self.device = device
        self.samples = samples
        self.draw = torch.Generator().manual_seed(seed)
        self.dimensions = 0
        self.log_weights: list[Tensor] = []

    @torch.inference_mode()
    def add(self, x: Tensor, mu: Tensor, logvar: Tensor) -> None:
        """Weigh the draws of a batch, all on the CPU: (B, C, ...), (B, z), (B, z)."""
        if not self.samples:
            return
        self.dimensions = x[0].numel()
        columns = []
        for _ in range(self.samples):
            z = mu + torch.randn(mu.shape, generator=self.draw) * torch.exp(0.5 * logvar)
            x_hat = self.model.decode(z.to(self.device)).float().cpu()
            # Summed as float64: of millions of voxels float32 would lose the nats that matter.
            error = (x - x_hat).square().flatten(1).sum(1, dtype=torch.float64)
            likelihood = gaussian_log_likelihood(error, self.dimensions)
            columns.append(log_importance_weight(likelihood, z, mu, logvar))
        self.log_weights.append(torch.stack(columns, 1))

    def metrics(self) -> dict[str, Any]:
        """Means over samples in nats; nothing when switched off."""
        if not self.samples:
            return {}
        weights = torch.cat(self.log_weights)  # (N, K)
        bound, elbo = float(importance_weighted_bound(weights).mean()), float(weights.mean())
        return {
            "log_likelihood_nats": {
                "importance_weighted_bound": bound,
                "elbo": elbo,
                "gain": bound - elbo,
                "bound_per_dimension": bound / self.dimensions,
                "importance_samples": self.samples,
                "dimensions": self.dimensions,
                "likelihood_variance": VARIANCE,
            }
        }


def latent_headline(latent: dict[str, Any]) -> list[str]:
    """The latent space in a few words, for the log."""
    parts = [f"active units {latent['active_units']}/{latent['units']}"]
    if "kl_decomposition_nats" in latent:
        found = latent["kl_decomposition_nats"]
        parts.append(
            f"KL {latent['kl_nats_per_sample']:.4g} nats = mutual information "
            f"{found['mutual_information']:.3g} (at most {found['mutual_information_limit']:.3g}) "
            f"+ total correlation {found['total_correlation']:.3g} "
            f"+ dimension-wise {found['dimension_wise_kl']:.3g}"
        )
        gap = latent["aggregate_posterior"]
        parts.append(f"MMD² to the prior {gap['mmd_squared']:.3g}")
    if "log_likelihood_nats" in latent:
        bound = latent["log_likelihood_nats"]
        parts.append(
            f"log-likelihood at least {bound['importance_weighted_bound']:.6g} nats "
            f"(ELBO {bound['elbo']:.6g})"
        )
    return parts

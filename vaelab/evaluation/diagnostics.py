"""What ``task=evaluate`` says of the latent space: information, prior, likelihood."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vaelab.anomaly.detector import Prediction
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


@dataclass(frozen=True)
class KLParts:
    """The terms of the mean KL in nats; see ``vaelab.metrics.decomposition``."""

    mutual_information: float
    total_correlation: float
    dimension_wise_kl: float
    mutual_information_limit: float
    """The logarithm of ``samples``, which mutual information cannot exceed."""
    samples: int


@dataclass(frozen=True)
class AggregatePosterior:
    """How far q(z) is from the prior; see ``vaelab.metrics.prior_match``."""

    mean_norm_prior_sd: float
    covariance_distance_prior_variance: float
    mmd_squared: float


@dataclass(frozen=True)
class LogLikelihood:
    """Lower bounds on log p(x) in nats, means over samples; see ``vaelab.metrics.likelihood``."""

    importance_weighted_bound: float
    elbo: float
    gain: float
    """Of the former over the latter."""
    bound_per_dimension: float
    importance_samples: int
    dimensions: int
    """Values of an image."""
    likelihood_variance: float


def latent_diagnostics(mu: Tensor, logvar: Tensor, seed: int) -> tuple[KLParts, AggregatePosterior]:
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
    return (
        KLParts(*parts, mutual_information_limit=math.log(len(mu)), samples=len(mu)),
        AggregatePosterior(
            mean_norm(mu),
            covariance_distance(mu, logvar),
            mmd_squared(sample_aggregate(mu, logvar, POINTS, draw), prior),
        ),
    )


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

    @torch.no_grad()
    def add(self, batch: Mapping[str, Any], prediction: Prediction) -> None:
        """Weigh the draws of a batch."""
        if not self.samples:
            return
        x, mu, logvar = batch["image"], prediction.output.mu, prediction.output.logvar
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

    def result(self) -> LogLikelihood | None:
        """Means over samples; None when switched off."""
        if not self.samples:
            return None
        weights = torch.cat(self.log_weights)  # (N, K)
        bound, elbo = float(importance_weighted_bound(weights).mean()), float(weights.mean())
        return LogLikelihood(
            importance_weighted_bound=bound,
            elbo=elbo,
            gain=bound - elbo,
            bound_per_dimension=bound / self.dimensions,
            importance_samples=self.samples,
            dimensions=self.dimensions,
            likelihood_variance=VARIANCE,
        )

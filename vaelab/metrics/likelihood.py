"""The importance-weighted bound on the log-likelihood of an image.

The squared error summed over D values is the negative log-likelihood of a Gaussian around x_hat
with variance 1/2, up to a constant that depends on D alone:

    log p(x|z) = -|x - x_hat(z)|^2 - (D/2) log(pi)

so that recon + kl of a run is -ELBO - (D/2) log(pi). A beta other than 1 trains a likelihood of
variance beta/2; the bound here uses variance 1/2 for all runs, so that they can be compared.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaelab.metrics.decomposition import log_normal

VARIANCE = 0.5
"""Of the likelihood whose negative logarithm is the squared error, up to a constant."""


def gaussian_log_likelihood(squared_error: Tensor, dimensions: int) -> Tensor:
    """Log p(x|z) in nats from the summed squared error of each sample, (B,)."""
    normaliser = 0.5 * dimensions * math.log(2 * math.pi * VARIANCE)
    return -squared_error.double() / (2 * VARIANCE) - normaliser


def log_importance_weight(log_likelihood: Tensor, z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """Log of p(x|z) p(z) / q(z|x) in nats for a draw of z for each sample, (B,).

    Args:
        log_likelihood: log p(x|z), (B,).
        z: drawn from q(z|x), (B, z).
        mu: posterior mean, (B, z).
        logvar: log posterior variance, (B, z).
    """
    z, mu, logvar = z.double(), mu.double(), logvar.double()
    prior = log_normal(z, torch.zeros_like(z), torch.zeros_like(z)).sum(1)
    return log_likelihood.double() + prior - log_normal(z, mu, logvar).sum(1)


def importance_weighted_bound(log_weights: Tensor) -> Tensor:
    """Lower bound on log p(x) in nats from K weights of each sample, (B, K) → (B,).

        log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x)

    Burda et al. 2016 (arXiv:1509.00519), equation 8. K = 1 is the ELBO; the bound rises with K, and
    equals log p(x) when q(z|x) is the true posterior.
    """
    return log_weights.logsumexp(1) - math.log(log_weights.shape[1])

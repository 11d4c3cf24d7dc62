"""Distance of the aggregate posterior from the prior: mean, covariance, and all moments (MMD).

The aggregate posterior q(z) is the mixture of the posteriors of all samples. Where it differs from
the prior, draws from the prior decode to unrealistic images (Tomczak & Welling 2018).
"""

from __future__ import annotations

import torch
from torch import Tensor


def mean_norm(mu: Tensor) -> float:
    """Norm of the mean of q(z), in standard deviations of the prior; ``mu`` is (N, z).

    Zero under the prior; about sqrt(z / N) for N draws of the prior.
    """
    return float(mu.double().mean(0).norm())


def covariance_distance(mu: Tensor, logvar: Tensor) -> float:
    """Frobenius norm of Cov q(z) - I, in variances of the prior; (N, z) with N at least 2.

        Cov q(z) = Cov(mu) + diag(mean exp(logvar))

    the law of total covariance. Zero for a collapsed space; about z when z units encode the same
    signal without noise.
    """
    mu = mu.double()
    between = mu.T.cov().reshape(mu.shape[1], mu.shape[1])  # of one unit cov() is a scalar
    covariance = between + torch.diag(logvar.double().exp().mean(0))
    return float((covariance - torch.eye(mu.shape[1], dtype=torch.float64)).norm())


def sample_aggregate(mu: Tensor, logvar: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Independent draws of q(z), (count, z): draw a sample, then z from its posterior."""
    rows = torch.randint(len(mu), (count,), generator=generator)
    noise = torch.randn(count, mu.shape[1], generator=generator)
    return mu[rows] + noise * torch.exp(0.5 * logvar[rows])


def mmd_squared(a: Tensor, b: Tensor) -> float:
    """Squared maximum mean discrepancy of two sets of draws, (M, z) and (K, z); no unit.

    The unbiased estimate of Gretton et al. 2012 (JMLR 13), equation 3, which scatters around zero
    for equal distributions and may be negative. The kernel is the inverse multiquadric
    k(x, y) = C / (C + |x - y|^2) with C = 2z, the mean squared distance of two draws of the prior
    (Tolstikhin et al. 2018, arXiv:1711.01558); the result is below 2.
    """
    a, b = a.double(), b.double()
    scale = 2.0 * a.shape[1]

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return scale / (scale + torch.cdist(x, y).square())

    def within(x: Tensor) -> Tensor:
        return (kernel(x, x).sum() - len(x)) / (len(x) * (len(x) - 1))  # k(x, x) = 1

    return float(within(a) + within(b) - 2 * kernel(a, b).mean())

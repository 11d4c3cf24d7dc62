"""The KL of a VAE in three terms: information, dependence between units, shape of each unit."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

NUMBERS_AT_ONCE = 4_000_000  # float64: 32 MB


class KLDecomposition(NamedTuple):
    """Three terms in nats whose sum is the mean KL of the samples.

        E_n KL(q(z|n) || p(z)) = I_q(n; z) + KL(q(z) || prod_j q(z_j)) + sum_j KL(q(z_j) || p(z_j))

    Chen et al. 2018 (arXiv:1802.04942), equation 2, with q(z) the mixture of the N posteriors.
    """

    mutual_information: float
    """I_q(n; z) = E log q(z|n)/q(z), between sample and latents (Hoffman & Johnson 2016). At most
    log N, where it saturates as soon as no two posteriors overlap."""
    total_correlation: float
    """KL(q(z) || prod_j q(z_j)): dependence between units. Large for few samples whatever the
    network, since N points in many units are dependent: compare at equal N."""
    dimension_wise_kl: float
    """sum_j KL(q(z_j) || N(0, 1)): distance of each unit from its prior."""

    @property
    def total(self) -> float:
        """The mean KL, estimated from the same draws."""
        return self.mutual_information + self.total_correlation + self.dimension_wise_kl


@torch.no_grad()
def kl_decomposition(
    mu: Tensor, logvar: Tensor, generator: torch.Generator, draws: int = 1
) -> KLDecomposition:
    """Decompose the mean KL over samples by Monte Carlo.

    The mixture of the N posteriors is exact; only the expectation over z is drawn. Time grows with
    draws · N² · z.

    Args:
        mu: posterior means, (N, z), on the CPU.
        logvar: log posterior variances, (N, z).
        generator: of the draws.
        draws: z per sample.
    """
    mu, logvar = mu.double(), logvar.double()
    count, units = mu.shape
    sums = torch.zeros(3, dtype=torch.float64)
    rows_at_once = max(1, NUMBERS_AT_ONCE // (count * units))
    samples = torch.arange(count).repeat(draws)
    noise = torch.randn(len(samples), units, generator=generator, dtype=torch.float64)
    for start in range(0, len(samples), rows_at_once):
        rows = samples[start : start + rows_at_once]
        spread = torch.exp(0.5 * logvar[rows])
        z = mu[rows] + noise[start : start + rows_at_once] * spread  # (b, z)
        log_units = log_normal(z[:, None], mu, logvar)  # (b, N, z): log q(z_j|m)
        joint = log_units.sum(2)  # (b, N): log q(z|m)
        own = joint.gather(1, rows[:, None])[:, 0]  # (b,): log q(z|n)
        mixture = joint.logsumexp(1) - math.log(count)  # log q(z)
        product = (log_units.logsumexp(1) - math.log(count)).sum(1)  # sum_j log q(z_j)
        prior = log_normal(z, torch.zeros_like(z), torch.zeros_like(z)).sum(1)
        terms = torch.stack([own - mixture, mixture - product, product - prior])
        sums += terms.sum(1)
    return KLDecomposition(*(sums / (draws * count)).tolist())


def log_normal(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """Log density of N(mu, exp(logvar)) at z, element by element, in nats."""
    return -0.5 * (math.log(2 * math.pi) + logvar + (z - mu).square() * torch.exp(-logvar))

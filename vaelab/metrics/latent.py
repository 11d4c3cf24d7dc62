"""Active units: how many latent units carry information about the sample."""

from __future__ import annotations

from torch import Tensor

ACTIVE_THRESHOLD = 0.01
"""Variance over samples from which a unit counts as active (Burda et al. 2016, section 5.2)."""


def active_units(mu: Tensor, threshold: float = ACTIVE_THRESHOLD) -> int:
    """Number of units whose posterior mean varies over samples by more than ``threshold``.

    Burda et al. 2016 (arXiv:1509.00519), section 5.2: A_u = Cov_x(E_q[u|x]) > 0.01.

    Args:
        mu: posterior means, (N, z) with N at least 2.
        threshold: variance, in units of the latent squared.
    """
    return int((mu.double().var(dim=0) > threshold).sum())

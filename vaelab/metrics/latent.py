"""Is the latent space in use? By two measures, each with a name of its own.

A unit is *active* when its posterior mean varies over samples: then a sample can be told by it. A
unit is *paid for* when it costs KL: a unit may cost some and tell nothing, as one whose mean is off
zero for all samples alike.
"""

from __future__ import annotations

from torch import Tensor

ACTIVE_THRESHOLD = 0.01
"""Variance of mu over samples above which a unit is active (Burda et al. 2016, section 5.2)."""
PAID_NATS = 0.01
"""Mean KL above which a unit is paid for."""


def mu_variance(mu: Tensor) -> Tensor:
    """Variance of each unit's posterior mean over samples, (N, z) with N at least 2 → (z,)."""
    return mu.double().var(dim=0)


def is_active(mu: Tensor, threshold: float = ACTIVE_THRESHOLD) -> Tensor:
    """Which units are active, (N, z) with N at least 2 → bool (z,).

    Burda et al. 2016 (arXiv:1509.00519), section 5.2: A_u = Var_x(E_q[u|x]) > 0.01.

    Args:
        mu: posterior means.
        threshold: variance, in units of the latent squared.
    """
    return mu_variance(mu) > threshold


def active_units(mu: Tensor, threshold: float = ACTIVE_THRESHOLD) -> int:
    """Number of active units; see ``is_active``."""
    return int(is_active(mu, threshold).sum())


def kl_of_units(mu: Tensor, logvar: Tensor) -> Tensor:
    """Mean KL of each unit to N(0, 1) over samples in nats, both (N, z) → (z,)."""
    mu, logvar = mu.double(), logvar.double()
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).mean(0)

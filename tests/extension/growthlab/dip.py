"""DIP-VAE-II: the covariance of the aggregate posterior, over all processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_reduce

from vaelab.objective.contract import Step
from vaelab.objective.elbo import compute_elbo


@dataclass(frozen=True)
class DIP:
    """Kumar et al. 2018 (arXiv:1711.00848), section 3, DIP-VAE-II.

    Args:
        off_diagonal: weight of the squared covariances.
        diagonal: weight of the squared distance of the variances from 1.
    """

    off_diagonal: float = 10.0
    diagonal: float = 5.0

    def __call__(self, batch: Mapping[str, Any], output: Any, step: Step) -> dict[str, Tensor]:
        """ELBO plus the price of a covariance that is not that of the prior."""
        sums = compute_elbo(batch["image"], output.x_hat, output.mu, output.logvar, step.beta)
        mu, variance = output.mu.float(), output.logvar.float().exp()
        count = _over_all(torch.tensor(float(len(mu)), device=mu.device))
        mean = _over_all(mu.sum(0)) / count
        second = _over_all(mu.T @ mu) / count
        covariance = second - torch.outer(mean, mean)
        covariance = covariance + torch.diag(_over_all(variance.sum(0)) / count)
        spread = covariance.diagonal()
        off = covariance - torch.diag(spread)
        price = self.off_diagonal * off.square().sum()
        price = price + self.diagonal * (spread - 1).square().sum()
        # Of the samples here their share, so that a sum over processes counts it once.
        dip = price * len(mu) / count
        return {**sums, "loss": sums["loss"] + dip, "dip": dip}


def _over_all(value: Tensor) -> Tensor:
    """Sum over processes, with gradients."""
    if not distributed.is_initialized():
        return value
    total: Tensor = all_reduce(value)
    return total

"""The importance-weighted bound on a linear Gaussian model, whose likelihood is known.

Probabilistic PCA (Tipping & Bishop 1999): z ~ N(0, I), x|z ~ N(Wz, s²I), so x ~ N(0, WWᵀ + s²I).
With orthogonal columns of W the posterior is a diagonal Gaussian.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vaelab.metrics.likelihood import (
    VARIANCE,
    gaussian_log_likelihood,
    importance_weighted_bound,
    log_importance_weight,
)

W = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 0.0], [0.0, 0.0]])  # 4 values, 2 units


def draw_x(generator: torch.Generator, count: int = 6) -> Tensor:
    z = torch.randn(count, 2, generator=generator)
    return z @ W.T + math.sqrt(VARIANCE) * torch.randn(count, 4, generator=generator)


def log_marginal(x: Tensor) -> Tensor:
    covariance = W @ W.T + VARIANCE * torch.eye(4)
    model = torch.distributions.MultivariateNormal(torch.zeros(4), covariance)
    result: Tensor = model.log_prob(x)
    return result


def true_posterior(x: Tensor) -> tuple[Tensor, Tensor]:
    """Precision WᵀW / s² + I, which is diagonal here; mean = variance · Wᵀx / s²."""
    variance = 1 / ((W.T @ W).diag() / VARIANCE + 1)
    return variance * (x @ W) / VARIANCE, variance.log().expand(len(x), 2)


def log_weights(x: Tensor, mu: Tensor, logvar: Tensor, k: int, draw: torch.Generator) -> Tensor:
    columns = []
    for _ in range(k):
        z = mu + torch.randn(mu.shape, generator=draw) * torch.exp(0.5 * logvar)
        error = (x - z @ W.T).square().sum(1)
        likelihood = gaussian_log_likelihood(error, dimensions=4)
        columns.append(log_importance_weight(likelihood, z, mu, logvar))
    return torch.stack(columns, 1)


def test_the_squared_error_is_a_gaussian_of_variance_one_half() -> None:
    error = torch.tensor([3.0])  # of two values
    by_hand = torch.distributions.Normal(0.0, math.sqrt(0.5)).log_prob(torch.tensor([1.0, 2**0.5]))
    assert gaussian_log_likelihood(error, 2).item() == pytest.approx(by_hand.sum().item())
    assert gaussian_log_likelihood(error, 2).item() == pytest.approx(-3 - math.log(math.pi))


def test_under_the_true_posterior_every_weight_is_the_likelihood_itself() -> None:
    draw = torch.Generator().manual_seed(0)
    x = draw_x(draw)
    weights = log_weights(x, *true_posterior(x), k=3, draw=draw)
    expected = log_marginal(x).double()[:, None].expand(6, 3)
    torch.testing.assert_close(weights, expected, rtol=1e-4, atol=1e-4)


def test_under_another_posterior_the_bound_is_below_and_rises_towards_it() -> None:
    draw = torch.Generator().manual_seed(0)
    x = draw_x(draw)
    mu, logvar = true_posterior(x)
    weights = log_weights(x, mu + 0.3, logvar + 0.5, k=20_000, draw=draw)
    elbo = weights.mean(1)  # the mean of K = 1 bounds is the ELBO
    ten = importance_weighted_bound(weights.reshape(-1, 10)).reshape(6, -1).mean(1)
    all_of_them = importance_weighted_bound(weights)
    truth = log_marginal(x).double()
    assert (elbo < ten).all()
    assert (ten < truth).all()
    torch.testing.assert_close(all_of_them, truth, rtol=0, atol=0.05)


def test_with_one_weight_the_bound_is_the_elbo() -> None:
    draw = torch.Generator().manual_seed(0)
    x = draw_x(draw)
    mu, logvar = true_posterior(x)
    mu, logvar = mu + 0.3, logvar + 0.5
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)
    # E|x - Wz|² = |x - W mu|² + tr(WᵀW diag(variance)).
    error = (x - mu @ W.T).square().sum(1) + (logvar.exp() * (W.T @ W).diag()).sum(1)
    elbo = gaussian_log_likelihood(error, 4) - kl
    bounds = importance_weighted_bound(log_weights(x, mu, logvar, 20_000, draw).reshape(-1, 1))
    torch.testing.assert_close(bounds.reshape(6, -1).mean(1), elbo, rtol=0, atol=0.1)


def test_weights_that_underflow_are_averaged_all_the_same() -> None:
    # log of the mean of e^-1e6 and e^-(1e6 + log 3): e^-1e6 · (1 + ⅓)/2.
    weights = torch.tensor([[-1e6, -1e6 - math.log(3)]], dtype=torch.float64)
    assert importance_weighted_bound(weights).item() == pytest.approx(-1e6 + math.log(2 / 3))

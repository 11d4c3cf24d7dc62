"""Aggregate posterior against prior, where the gap is known."""

from __future__ import annotations

import math

import pytest
import torch

from vaelab.metrics.prior_match import covariance_distance, mean_norm, mmd_squared, sample_aggregate


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_mean_of_three_and_four_is_five_from_the_prior() -> None:
    mu = torch.tensor([[2.0, 4.0], [4.0, 4.0]])  # mean (3, 4)
    assert mean_norm(mu) == 5.0


def test_a_collapsed_space_has_the_covariance_of_the_prior() -> None:
    assert covariance_distance(torch.zeros(10, 4), torch.zeros(10, 4)) == 0


def test_variance_within_and_between_posteriors_adds_up() -> None:
    # mu ±1 has a variance of 2 over two samples; posteriors of variance ½ add ½: 2.5 - 1 = 1.5.
    mu = torch.tensor([[1.0], [-1.0]])
    logvar = torch.full((2, 1), math.log(0.5))
    assert covariance_distance(mu, logvar) == pytest.approx(1.5)


def test_units_that_encode_the_same_have_a_covariance() -> None:
    # Variance 1 each and covariance 1 between: two entries of 1 off the diagonal.
    mu = torch.tensor([[1.0, 1.0], [-1.0, -1.0]]) / math.sqrt(2)
    assert covariance_distance(mu, torch.full((2, 2), -100.0)) == pytest.approx(math.sqrt(2))


def test_mmd_of_four_points_by_hand() -> None:
    # One unit: k = 2 / (2 + d²). Within {0, 1}: k(1) = ⅔; within {2, 4}: k(2) = ⅓;
    # between: d = 2, 4, 1, 3 → ⅓, 1/9, ⅔, 2/11, mean 0.3232.
    a, b = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [4.0]])
    between = (1 / 3 + 1 / 9 + 2 / 3 + 2 / 11) / 4
    assert mmd_squared(a, b) == pytest.approx(2 / 3 + 1 / 3 - 2 * between)


def test_mmd_of_equal_distributions_scatters_around_zero_and_of_shifted_ones_does_not() -> None:
    draw = seeded()
    null = [mmd_squared(*torch.randn(2, 50, 3, generator=draw)) for _ in range(100)]
    spread = torch.tensor(null).std().item()
    assert abs(sum(null) / 100) < 3 * spread / 10  # mean of 100 within three standard errors
    assert min(null) < 0  # unbiased, not squared
    shifted = mmd_squared(*torch.randn(2, 50, 3, generator=draw) + torch.tensor([[[0.0]], [[1.0]]]))
    assert shifted > 5 * spread


def test_draws_of_the_aggregate_have_its_moments() -> None:
    # Half N(3, ¼), half N(-3, ¼): mean 0, variance 9.25.
    mu, logvar = torch.tensor([[3.0], [-3.0]]), torch.full((2, 1), math.log(0.25))
    z = sample_aggregate(mu, logvar, 20_000, seeded())
    assert z.mean().item() == pytest.approx(0, abs=0.1)  # 3 / sqrt(20000) = 0.02
    assert z.var().item() == pytest.approx(9.25, abs=0.1)

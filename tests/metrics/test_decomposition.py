"""The KL decomposition on mixtures whose three terms are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vaelab.metrics.decomposition import kl_decomposition


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def mean_kl(mu: Tensor, logvar: Tensor) -> float:
    """Kingma & Welling 2014, appendix B: ½ Σ (mu² + sigma² - 1 - log sigma²)."""
    return float(0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1).mean())


def test_a_collapsed_posterior_spends_nothing() -> None:
    terms = kl_decomposition(torch.zeros(20, 3), torch.zeros(20, 3), seeded())
    assert tuple(terms) == pytest.approx((0, 0, 0), abs=1e-12)


def test_without_overlap_of_posteriors_mutual_information_is_log_n() -> None:
    mu = 100.0 * torch.arange(8)[:, None]  # 100 standard deviations apart
    terms = kl_decomposition(mu, torch.zeros(8, 1), seeded(), draws=10)
    assert terms.mutual_information == pytest.approx(math.log(8), abs=1e-9)
    assert terms.total_correlation == pytest.approx(0, abs=1e-9)  # one unit


def test_two_units_that_encode_the_same_have_a_total_correlation_of_log_n() -> None:
    # Both units are a mixture of 8 modes, which agree: H(z1) + H(z2) - H(z1, z2) = log 8, as each
    # single entropy has the mode's log 8 and the joint one has it once.
    mu = (100.0 * torch.arange(8)[:, None]).expand(8, 2)
    terms = kl_decomposition(mu, torch.zeros(8, 2), seeded(), draws=10)
    assert terms.total_correlation == pytest.approx(math.log(8), abs=1e-9)


def test_units_on_a_grid_are_independent() -> None:
    # Two modes in each of two units, in all four combinations: q(z) factorises.
    mu = torch.tensor([[0.0, 0.0], [0.0, 100.0], [100.0, 0.0], [100.0, 100.0]])
    terms = kl_decomposition(mu, torch.zeros(4, 2), seeded(), draws=10)
    assert terms.total_correlation == pytest.approx(0, abs=1e-9)
    assert terms.mutual_information == pytest.approx(math.log(4), abs=1e-9)


def test_one_posterior_for_all_costs_only_its_distance_from_the_prior() -> None:
    # N(1, 1) against N(0, 1) in five units: 5 · ½ nats, none of it about the sample.
    terms = kl_decomposition(torch.ones(50, 5), torch.zeros(50, 5), seeded(), draws=400)
    assert terms.mutual_information == pytest.approx(0, abs=1e-9)
    assert terms.total_correlation == pytest.approx(0, abs=1e-9)
    assert terms.dimension_wise_kl == pytest.approx(2.5, abs=0.06)  # sd sqrt(5) / sqrt(20000)


def test_the_three_terms_add_up_to_the_mean_kl() -> None:
    draw = seeded()
    mu = torch.randn(40, 6, generator=draw)
    logvar = torch.randn(40, 6, generator=draw) - 1
    terms = kl_decomposition(mu, logvar, draw, draws=500)
    # The draw of each z has a standard deviation of a few nats: 20000 draws leave 0.02.
    assert terms.total == pytest.approx(mean_kl(mu, logvar), abs=0.1)
    assert min(terms) > 0


def test_many_samples_are_worked_through_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    mu, logvar = torch.randn(30, 4, generator=seeded()), torch.zeros(30, 4)
    whole = kl_decomposition(mu, logvar, seeded(), draws=3)
    monkeypatch.setattr("vaelab.metrics.decomposition.NUMBERS_AT_ONCE", 30 * 4 * 7)
    pieces = kl_decomposition(mu, logvar, seeded(), draws=3)  # seven rows at a time
    assert tuple(pieces) == pytest.approx(tuple(whole))

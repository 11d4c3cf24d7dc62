"""Claims about two-sample tests."""

from __future__ import annotations

import numpy as np
import pytest

from vaelab.metrics.two_sample import energy_test, smallest_p

DRAW = np.random.default_rng(0)


def test_samples_far_apart_have_the_smallest_p_value():
    first, second = DRAW.normal(0, 1, (20, 3)), DRAW.normal(9, 1, (15, 3))
    assert energy_test(first, second, permutations=99, seed=0) == 1 / 100


def test_equal_constants_are_no_evidence():
    assert energy_test(np.ones((5, 2)), np.ones((4, 2)), permutations=99, seed=0) == 1


def test_a_change_of_spread_alone_is_seen():
    first, second = DRAW.normal(0, 1, (60, 2)), DRAW.normal(0, 4, (60, 2))
    assert energy_test(first, second, permutations=999, seed=0) < 0.01


def test_of_one_distribution_p_values_are_no_smaller_than_promised():
    """P(p ≤ α) ≤ α: of 400 pairs at most 20 + 2.6 standard deviations of √(400 · 0.05 · 0.95)."""
    p_values = [
        energy_test(DRAW.exponential(size=(12, 2)), DRAW.exponential(size=(5, 2)), 99, seed)
        for seed in range(400)
    ]
    assert sum(p <= 0.05 for p in p_values) <= 20 + 2.6 * np.sqrt(400 * 0.05 * 0.95)
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.05)


def test_one_against_nineteen_cannot_be_below_a_twentieth():
    assert smallest_p(19, 1) == 1 / 20
    p_value = energy_test(np.zeros((19, 1)), np.full((1, 1), 9.0), permutations=1999, seed=0)
    assert p_value == pytest.approx(1 / 20, abs=0.02)

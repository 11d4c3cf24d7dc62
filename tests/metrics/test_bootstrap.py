"""Weights of patients, sums over scans and pairs, and the intervals that come of them."""

from __future__ import annotations

import numpy as np
import pytest

from vaelab.metrics.bootstrap import interval, over_pairs, over_scans, patient_weights


def test_scans_of_a_patient_are_drawn_together_and_patients_as_often_as_there_are() -> None:
    weights = patient_weights(["a", "b", "a", "c"], num_resamples=50, seed=0)
    assert weights.shape == (51, 4)
    assert weights[0].tolist() == [1, 1, 1, 1]
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(1) == 3).all()
    assert weights[1:].std() > 0


def test_a_scan_drawn_twice_makes_no_pair_with_itself() -> None:
    numbers = np.array([[9.0, 1.0, 2.0], [1.0, 9.0, 4.0], [2.0, 4.0, 9.0]])
    once, twice = np.array([[1.0, 1.0, 1.0], [2.0, 0.0, 1.0]])
    # Ordered pairs: 2 (1 + 2 + 4); and 2 · (2 · 1) · 2, the pair of scans 0 and 2.
    assert over_pairs(numbers, np.stack([once, twice])).tolist() == [14, 8]
    assert over_scans(np.array([1.0, 2.0, 3.0]), np.stack([once, twice])).tolist() == [6, 5]


def test_the_interval_of_a_mean_is_two_standard_errors_wide_on_each_side() -> None:
    numbers = np.random.default_rng(0).normal(size=400)
    weights = patient_weights([str(i) for i in range(400)], 4000, seed=1)
    estimate = interval(over_scans(numbers, weights) / weights.sum(1))
    assert estimate.value == pytest.approx(numbers.mean())
    half = 1.96 * numbers.std() / 20
    assert estimate.low == pytest.approx(numbers.mean() - half, abs=0.01)
    assert estimate.high == pytest.approx(numbers.mean() + half, abs=0.01)


def test_resamples_without_a_value_are_left_out() -> None:
    estimate = interval(np.array([1.0, np.nan, 2.0, 2.0]))
    assert (estimate.value, estimate.low, estimate.high) == (1, 2, 2)
    assert np.isnan(interval(np.array([1.0, np.nan])).low)

"""Intraclass correlation against the worked example of its paper, and time points on a line."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vaelab.metrics.bootstrap import patient_weights
from vaelab.metrics.reliability import same_patient_auroc, space_icc

# Shrout & Fleiss 1979, table 2: six targets, four judges.
RATINGS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float
)
ONCE = np.ones((1, 6))


def test_in_one_dimension_it_is_the_one_way_icc_of_the_papers_example() -> None:
    assert round(float(space_icc(RATINGS[..., None], ONCE)[0]), 2) == 0.17


def test_repeats_that_agree_are_perfect() -> None:
    points = np.arange(5.0)
    assert space_icc(np.stack([points, points], 1)[..., None], np.ones((1, 5)))[0] == 1


def test_the_icc_of_a_space_is_the_share_of_variance_between_subjects() -> None:
    # Between subjects variance 4 + 1, within 1 + 1: 5 / 7.
    draw = np.random.default_rng(0)
    subjects = draw.normal(size=(4000, 1, 2)) * np.array([2.0, 1.0])
    repeats = subjects + draw.normal(size=(4000, 3, 2))
    assert space_icc(repeats, np.ones((1, 4000)))[0] == pytest.approx(5 / 7, abs=0.02)


def test_noise_without_subjects_has_no_icc() -> None:
    repeats = np.random.default_rng(0).normal(size=(2000, 2, 3))
    assert space_icc(repeats, np.ones((1, 2000)))[0] == pytest.approx(0, abs=0.05)


def test_weights_are_as_good_as_rows_repeated() -> None:
    repeats = np.random.default_rng(0).normal(size=(5, 2, 3)) + np.arange(5)[:, None, None]
    times = np.array([2, 0, 1, 1, 1])
    repeated = np.repeat(repeats, times, axis=0)
    expected = space_icc(repeated, np.ones((1, 5)))[0]
    assert space_icc(repeats, times[None].astype(float))[0] == pytest.approx(expected)


def patients(*names: str) -> NDArray[np.str_]:
    return np.array(names)


def test_scans_of_a_patient_that_are_nearest_to_each_other_are_perfect() -> None:
    points = np.array([[0.0], [1.0], [10.0], [11.0], [50.0]])
    names = patients("a", "a", "b", "b", "c")
    assert same_patient_auroc(points, names, np.ones((1, 5)))[0] == 1


def test_scans_of_a_patient_at_opposite_ends_are_backwards() -> None:
    points = np.array([[0.0], [10.0], [4.0], [5.0]])
    names = patients("a", "a", "b", "c")
    assert same_patient_auroc(points, names, np.ones((1, 4)))[0] == 0


def test_a_space_independent_of_the_patient_is_at_one_half() -> None:
    points = np.random.default_rng(0).normal(size=(400, 3))
    names = np.array([f"p{i // 2}" for i in range(400)])
    auroc = same_patient_auroc(points, names, patient_weights(list(names), 100, 0))
    assert auroc[0] == pytest.approx(0.5, abs=0.06)
    assert np.percentile(auroc[1:], 2.5) < 0.5 < np.percentile(auroc[1:], 97.5)


def test_a_space_where_all_is_one_point_is_at_one_half() -> None:
    names = patients("a", "a", "b", "c")
    assert same_patient_auroc(np.zeros((4, 2)), names, np.ones((1, 4)))[0] == 0.5


def test_without_a_second_scan_the_result_is_nan() -> None:
    assert np.isnan(same_patient_auroc(np.eye(3), patients("a", "b", "c"), np.ones((1, 3)))).all()

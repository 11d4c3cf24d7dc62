"""Conformal p-values: false alarms are what was promised, whatever the scores look like."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from vaelab.anomaly.calibration import ConformalCalibration
from vaelab.errors import UserError

FOUR = ConformalCalibration(np.array([30.0, 10, 40, 20]))  # p-values are fifths


# --- the p-value


@pytest.mark.parametrize(
    ("score", "as_large"), [(5, 4), (15, 3), (25, 2), (35, 1), (45, 0), (-math.inf, 4), (1e30, 0)]
)
def test_the_p_value_is_the_share_of_scores_as_large_the_new_one_included(
    score: float, as_large: int
) -> None:
    assert FOUR.p_value(score) == (1 + as_large) / 5


def test_a_tie_counts_as_larger() -> None:
    assert FOUR.p_value(20.0) == (1 + 3) / 5
    assert ConformalCalibration(np.full(9, 7.0)).p_value(7.0) == 1


def test_the_p_value_takes_the_shape_of_the_scores() -> None:
    assert FOUR.p_value(np.array([[5.0, 45.0]])).tolist() == [[1, 1 / 5]]
    assert FOUR.p_value(np.zeros((0,))).shape == (0,)
    assert float(FOUR.p_value(45)) == 1 / 5


def test_a_larger_score_never_has_a_larger_p_value() -> None:
    draw = np.random.default_rng(0)
    calibration = ConformalCalibration(draw.normal(size=50).round(1))
    p = calibration.p_value(np.linspace(-4, 4, 1001))
    assert (np.diff(p) <= 0).all()
    assert (p[0], p[-1]) == (1, 1 / 51)


# --- false alarms


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.29, 0.5])
@pytest.mark.parametrize("n", [19, 50, 99])
@pytest.mark.parametrize("shape", [np.random.Generator.normal, np.random.Generator.standard_cauchy])
def test_normal_images_are_flagged_at_the_promised_rate(
    shape: Callable[..., np.ndarray], n: int, alpha: float
) -> None:
    draw = np.random.default_rng(0)
    repetitions = 4000  # each calibrates anew and looks at one new normal image
    scores = shape(draw, size=(repetitions, n + 1))
    alarms = sum(ConformalCalibration(row[:-1]).flag(row[-1], alpha) for row in scores)
    rate = math.floor(round(alpha * (n + 1), 9)) / (n + 1)  # exact for continuous scores
    assert rate <= alpha
    assert ConformalCalibration(scores[0, :-1]).false_alarm_rate(alpha) == rate
    low, high = binom.interval(0.9999, repetitions, rate)
    assert low <= alarms <= high


def test_the_rate_is_exact_when_each_of_n_plus_1_scores_takes_its_turn_as_the_new_one() -> None:
    # Exchangeable means that each of the 20 is equally likely to be the one that was not seen.
    scores = np.random.default_rng(0).normal(size=20)
    alarms = sum(
        bool(ConformalCalibration(np.delete(scores, i)).flag(scores[i], 0.15)) for i in range(20)
    )
    assert alarms / 20 == 3 / 20  # ⌊0.15 · 20⌋ of 20: the three largest


def test_ties_make_false_alarms_rarer_and_never_more_frequent() -> None:
    scores = np.repeat(np.arange(4.0), 5)
    alarms = sum(
        bool(ConformalCalibration(np.delete(scores, i)).flag(scores[i], 0.3)) for i in range(20)
    )
    # The five largest tie: one of them has p = 5/20 and is flagged, as all five are; the next
    # five have p = 10/20. So 5 of 20, where six of 20 would be tolerated.
    assert alarms / 20 == 5 / 20


def test_a_sick_image_above_all_normal_ones_is_found() -> None:
    calibration = ConformalCalibration(np.arange(100.0))
    assert calibration.flag(np.array([50.0, 1000.0]), alpha=0.05).tolist() == [False, True]


def test_one_calibration_sets_own_rate_is_where_beta_says() -> None:
    # Uniform scores: the share of new normal images above the threshold t is 1 − t.
    draw = np.random.default_rng(0)
    repetitions, n, alpha = 1000, 100, 0.05
    low, high = ConformalCalibration(np.arange(float(n))).false_alarm_range(alpha, level=0.9)
    shares = [1 - ConformalCalibration(draw.random(n)).threshold(alpha) for _ in range(repetitions)]
    inside = sum(low <= share <= high for share in shares)
    assert binom.ppf(0.0001, repetitions, 0.9) <= inside <= binom.ppf(0.9999, repetitions, 0.9)


# --- the threshold


def test_the_threshold_flags_what_lies_above_it() -> None:
    # One fifth tolerated: only a score above all four. Two fifths: one of the four as large.
    assert FOUR.threshold(0.2) == 40
    assert FOUR.threshold(0.4) == 30
    assert FOUR.threshold(0.39) == 40
    assert FOUR.threshold(0.8) == 10


@pytest.mark.parametrize("n", [1, 4, 19, 99, 999])
@pytest.mark.parametrize("ties", [False, True])
def test_threshold_and_flag_agree_at_every_alpha(n: int, ties: bool) -> None:
    draw = np.random.default_rng(0)
    calibration = ConformalCalibration(draw.normal(size=n).round(1 if ties else 8))
    scores = np.concatenate([calibration.scores, calibration.scores + 1e-9, [-9, 9]])
    for percent in range(1, 100):  # 0.29 · 100 and others are a hair below a whole number
        alpha = percent / 100
        above = scores > calibration.threshold(alpha)
        assert (above == calibration.flag(scores, alpha)).all()


def test_an_alpha_too_small_for_the_set_flags_nothing_and_says_so() -> None:
    calibration = ConformalCalibration(np.arange(20.0))
    assert calibration.smallest_alpha == 1 / 21
    assert calibration.threshold(0.01) == math.inf
    assert not calibration.flag(1e30, 0.01)
    assert calibration.false_alarm_rate(0.01) == 0
    assert calibration.false_alarm_range(0.01) == (0, 0)
    assert calibration.warning(0.01) == (
        "task.alpha=0.01: nothing can be flagged, since 20 calibration images give p-values from "
        "1/21 on; set task.alpha to 0.04762 or more, or calibrate on at least 99 normal images"
    )


def test_both_cures_of_the_warning_cure() -> None:
    assert ConformalCalibration(np.arange(20.0)).warning(0.04762) is None
    assert ConformalCalibration(np.arange(99.0)).warning(0.01) is None
    assert ConformalCalibration(np.arange(98.0)).warning(0.01) is not None


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 5.0, math.nan])
def test_an_alpha_outside_0_and_1_is_refused(alpha: float) -> None:
    for use in (
        lambda: FOUR.flag(1.0, alpha),
        lambda: FOUR.threshold(alpha),
        lambda: FOUR.warning(alpha),
        lambda: FOUR.false_alarm_rate(alpha),
        lambda: FOUR.false_alarm_range(alpha),
    ):
        with pytest.raises(UserError, match=rf"task\.alpha={alpha}: .*try 0\.05"):
            use()


# --- what goes in


def test_scores_are_kept_in_order_and_cannot_be_changed() -> None:
    given = np.array([3, 1, 2], dtype=np.float32)
    calibration = ConformalCalibration(given)
    given[0] = 99
    assert calibration.scores.tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="read-only"):
        calibration.scores[0] = 0


def test_no_score_is_refused() -> None:
    with pytest.raises(UserError, match="at least one normal image"):
        ConformalCalibration(np.array([]))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_calibration_score_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(UserError, match="1 of 3 calibration scores are not finite; did the run"):
        ConformalCalibration(np.array([1, bad, 2]))


def test_a_score_that_is_not_a_number_has_no_p_value() -> None:
    with pytest.raises(UserError, match="1 of 2 anomaly scores are not a number"):
        FOUR.p_value(np.array([1, math.nan]))


# --- the file


def test_a_calibration_comes_back_from_json_to_the_last_digit() -> None:
    calibration = ConformalCalibration(np.random.default_rng(0).normal(size=50) / 3)
    content = json.loads(json.dumps(calibration.to_json(), allow_nan=False))
    assert content["count"] == 50
    again = ConformalCalibration.from_json(content, "calibration.json")
    assert again.scores.tolist() == calibration.scores.tolist()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ([1, 2], "no list of numbers under 'scores'"),
        ({}, "no list of numbers under 'scores'"),
        ({"count": 1, "scores": ["1"]}, "no list of numbers under 'scores'"),
        ({"count": 1, "scores": [True]}, "no list of numbers under 'scores'"),
        ({"count": 3, "scores": [1.0, 2.0]}, "count is 3, but there are 2 scores"),
        ({"scores": [1.0]}, "count is None, but there are 1 scores"),
        ({"count": 0, "scores": []}, "no calibration score"),
        ({"count": 2, "scores": [1.0, math.nan]}, "1 of 2 calibration scores are not finite"),
    ],
)
def test_a_file_that_holds_no_calibration_is_named(content: Any, complaint: str) -> None:
    with pytest.raises(UserError, match=rf"^outputs/run/calibration\.json: .*{complaint}"):
        ConformalCalibration.from_json(content, "outputs/run/calibration.json")

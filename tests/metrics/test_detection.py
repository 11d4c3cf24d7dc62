"""Detection: a perfect, a blind and a backwards score, and the traps around them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import binom, norm
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from vaelab.errors import UserError
from vaelab.metrics.detection import (
    AtBestTestThreshold,
    Detection,
    detection_metrics,
    detection_with_intervals,
    resampled_detection,
    roc_points,
    subgroup_detection,
    subgroup_of,
)

NORMAL, SICK = 0, 1
LABELS = np.array([NORMAL, NORMAL, SICK, SICK])


def judge(*scores: float) -> Detection:
    """Two normal images' scores, then two sick ones'."""
    return detection_metrics(np.array(scores), LABELS)


# --- the triad


def test_a_score_that_ranks_every_sick_image_above_every_normal_one_is_perfect() -> None:
    detection = judge(0.1, 0.2, 0.3, 0.4)
    assert (detection.auroc, detection.average_precision) == (1.0, 1.0)


def test_the_same_score_for_all_is_blind() -> None:
    detection = judge(0.7, 0.7, 0.7, 0.7)
    assert detection.auroc == 0.5
    assert detection.average_precision == 0.5  # the share of sick images


def test_a_score_that_is_larger_for_normal_images_is_backwards() -> None:
    detection = judge(0.3, 0.4, 0.1, 0.2)
    assert detection.auroc == 0.0
    # Going down the ranking, precision is 1/3 at the first sick image and 2/4 at the second.
    assert detection.average_precision == pytest.approx((1 / 3 + 2 / 4) / 2)


# --- scores as they come


def test_separable_scores_of_100_to_400_are_perfect_without_squashing() -> None:
    # A sigmoid in float32 turns all of these into 1, and so the AUROC into 0.5.
    assert judge(100, 200, 300, 400).auroc == 1.0


def test_separable_scores_below_zero_are_perfect_too() -> None:
    assert judge(-400, -300, -200, -100).auroc == 1.0


def test_differences_in_the_last_digit_of_a_large_sum_still_rank() -> None:
    assert judge(1e7, 1e7 + 1, 1e7 + 2, 1e7 + 3).auroc == 1.0


def test_one_pair_of_four_in_the_wrong_order_costs_a_quarter() -> None:
    # (0.1, 0.35) (0.1, 0.8) (0.4, 0.8) are right, (0.4, 0.35) is not.
    assert judge(0.1, 0.4, 0.35, 0.8).auroc == 3 / 4


def test_a_tie_counts_half() -> None:
    # Of four pairs three are right and (2, 2) is a tie.
    assert judge(1, 2, 2, 3).auroc == (3 + 0.5) / 4


def test_a_rare_disease_lowers_precision_and_not_auroc() -> None:
    scores, labels = np.zeros(100), np.zeros(100, dtype=int)
    labels[0] = SICK  # blind: all scores are the same
    detection = detection_metrics(scores, labels)
    assert (detection.auroc, detection.average_precision) == (0.5, pytest.approx(0.01))


def test_what_papers_print_is_at_the_threshold_that_is_best_for_it() -> None:
    # 1 N, 2 S, 3 N, 4 N, 5 S, 6 S: from 5 on 5 of 6 are right and F1 is 4/5; from 2 on 6/8.
    scores, labels = np.arange(1.0, 7), np.array([0, 1, 0, 0, 1, 1])
    papers = detection_metrics(scores, labels).at_best_test_threshold
    assert papers == AtBestTestThreshold(accuracy=5 / 6, f1=4 / 5)


def test_a_backwards_score_is_no_worse_than_flagging_none_or_all() -> None:
    scores, labels = np.arange(10.0), np.repeat([SICK, NORMAL], [2, 8])
    papers = detection_metrics(scores, labels).at_best_test_threshold
    assert papers == AtBestTestThreshold(accuracy=8 / 10, f1=2 * 2 / (2 + 10))


# --- counts, quantiles, the curve


def test_each_class_is_counted() -> None:
    scores, labels = np.arange(5.0), np.array([NORMAL, SICK, NORMAL, NORMAL, SICK])
    assert detection_metrics(scores, labels).counts == {"normal": 3, "sick": 2}


def test_quantiles_are_those_of_each_class() -> None:
    # Normal images score 0 to 100 and sick ones 1000 to 1100: the q-quantile is 100 q further on.
    scores = np.concatenate([np.arange(101.0), 1000 + np.arange(101.0)])
    labels = np.repeat([NORMAL, SICK], 101)
    quantiles = detection_metrics(scores, labels).score_quantiles
    steps = {"0.05": 5, "0.25": 25, "0.5": 50, "0.75": 75, "0.95": 95}
    assert quantiles["normal"] == pytest.approx(steps)
    assert quantiles["sick"] == pytest.approx({q: 1000 + step for q, step in steps.items()})


def test_the_area_under_the_drawn_curve_is_the_auroc() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 200)
    scores = labels + draw.normal(size=200)
    x, y = roc_points(scores, labels)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    area = (np.diff(x) * (y[1:] + y[:-1]) / 2).sum()
    assert area == pytest.approx(detection_metrics(scores, labels).auroc)


# --- refusals


@pytest.mark.parametrize(
    ("label", "counts"), [(NORMAL, "'normal': 4, 'sick': 0"), (SICK, "'normal': 0, 'sick': 4")]
)
def test_a_missing_class_is_refused_with_the_counts(label: int, counts: str) -> None:
    with pytest.raises(UserError, match=rf"normal and sick images.*\{{{counts}\}}"):
        detection_metrics(np.arange(4.0), np.full(4, label))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(UserError, match=r"1 of 4 anomaly scores are not finite; did the run div"):
        judge(1, bad, 2, 3)


# --- sensitivity at a specificity


def ten_normals_and(*sick: float) -> tuple[np.ndarray, np.ndarray]:
    """Normal images that score 1 to 10, then sick ones."""
    scores = np.array([*range(1, 11), *sick], dtype=float)
    return scores, np.repeat([NORMAL, SICK], [10, len(sick)])


def test_sensitivity_at_90_and_95_has_its_triad() -> None:
    def sensitivities(*scores: float) -> tuple[float, float]:
        detection = judge(*scores)
        return detection.sensitivity_at_specificity_90, detection.sensitivity_at_specificity_95

    assert sensitivities(0.1, 0.2, 0.3, 0.4) == (1, 1)
    assert sensitivities(0.7, 0.7, 0.7, 0.7) == (0, 0)  # flagging one flags all
    assert sensitivities(0.3, 0.4, 0.1, 0.2) == (0, 0)


def test_the_threshold_lets_exactly_the_tolerated_share_of_normal_images_through() -> None:
    # Nine of ten normal images score below 10, so from 9.5 on one false alarm is left.
    scores, labels = ten_normals_and(8.5, 9.5, 10.5, 11.5)
    assert detection_metrics(scores, labels).sensitivity_at_specificity_90 == 3 / 4
    # 95 % cannot be had of ten: only 100 % is at least that, and 9.5 is lost.
    assert detection_metrics(scores, labels).sensitivity_at_specificity_95 == 2 / 4


def test_a_sick_image_that_ties_with_too_many_normal_ones_is_not_flagged() -> None:
    scores = np.array([1, 1, 1, 2, 2, 2, 3])  # flagging the 2s costs two of five normal images
    labels = np.array([NORMAL, NORMAL, NORMAL, NORMAL, NORMAL, SICK, SICK])
    assert detection_metrics(scores, labels).sensitivity_at_specificity_90 == 1 / 2


# --- intervals

NUMBERS = (
    "auroc",
    "average_precision",
    "sensitivity_at_specificity_90",
    "sensitivity_at_specificity_95",
)


def one_patient_each(labels: np.ndarray) -> list[str]:
    return [f"patient{i}" for i in range(len(labels))]


def noisy(n: int, *, shift: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of ``n`` images of each class, of unit variance, ``shift`` apart."""
    labels = np.repeat([NORMAL, SICK], n)
    return np.random.default_rng(0).normal(size=2 * n) + shift * labels, labels


def test_estimates_are_those_of_detection_metrics_inside_their_intervals() -> None:
    scores, labels = noisy(60)
    estimates = detection_with_intervals(scores, labels, one_patient_each(labels))
    assert tuple(estimates) == NUMBERS
    for name, estimate in estimates.items():
        assert estimate.value == getattr(detection_metrics(scores, labels), name)
        assert estimate.low < estimate.value < estimate.high


@pytest.mark.parametrize("decimals", [0, 1, 8])  # many ties, some, none
def test_counting_agrees_with_scikit_learn_in_every_resample(decimals: int) -> None:
    scores, labels = noisy(40)
    scores = scores.round(decimals)
    times = np.random.default_rng(1).integers(0, 4, (20, 80)).astype(float)
    numbers = resampled_detection(scores, labels, times)
    for r in range(20):
        images = np.repeat(np.arange(80), times[r].astype(int))
        resample = labels[images], scores[images]
        assert numbers["auroc"][r] == pytest.approx(roc_auc_score(*resample), abs=1e-12)
        assert numbers["average_precision"][r] == pytest.approx(
            average_precision_score(*resample), abs=1e-12
        )
        false, true, _ = roc_curve(*resample, drop_intermediate=False)
        for name, specificity in zip(NUMBERS[2:], (0.9, 0.95), strict=True):
            allowed = 1 - false >= specificity - 1e-12
            assert numbers[name][r] == pytest.approx(true[allowed].max(), abs=1e-12)


def test_the_interval_of_a_blind_auroc_is_as_wide_as_theory_says() -> None:
    n = 300
    scores, labels = noisy(n, shift=0)
    auroc = detection_with_intervals(scores, labels, one_patient_each(labels))["auroc"]
    # ± 1.96 standard errors of √((2n + 1)/(12 n²)) (Hanley & McNeil 1982): 0.092 in all.
    width = 2 * 1.96 * ((2 * n + 1) / (12 * n**2)) ** 0.5
    assert auroc.high - auroc.low == pytest.approx(width, rel=0.1)


def test_four_copies_of_each_image_do_not_halve_the_interval_of_their_patients() -> None:
    scores, labels = (np.repeat(values, 4) for values in noisy(100))
    patients = np.repeat(np.arange(200).astype(str), 4).tolist()

    def width(patients: list[str]) -> float:
        estimate = detection_with_intervals(scores, labels, patients)["auroc"]
        return estimate.high - estimate.low

    # Taken for independent, four times the images give √4 times the precision.
    assert width(patients) == pytest.approx(2 * width(one_patient_each(labels)), rel=0.15)
    once = detection_with_intervals(*noisy(100), [str(i) for i in range(200)])["auroc"]
    assert width(patients) == pytest.approx(once.high - once.low)  # as if seen once, draw by draw


TRUTH_SHIFT = 1.5


@pytest.fixture(scope="module")
def coverage() -> dict[str, tuple[int, int]]:
    """How often of 200 intervals hold the truth: patients drawn, and images drawn.

    100 patients of each class with two images each: √0.8 of the patient and √0.2 of the image
    make unit variance, and sick images score TRUTH_SHIFT more.
    """

    def precision(s: float) -> float:
        true, false = norm.sf(s - TRUTH_SHIFT), norm.sf(s)
        return float(norm.pdf(s - TRUTH_SHIFT) * true / (true + false))

    truth = {
        "auroc": norm.cdf(TRUTH_SHIFT / 2**0.5),
        "average_precision": quad(precision, -8, 10)[0],  # over the scores of sick images
        "sensitivity_at_specificity_90": norm.cdf(TRUTH_SHIFT - norm.ppf(0.9)),
        "sensitivity_at_specificity_95": norm.cdf(TRUTH_SHIFT - norm.ppf(0.95)),
    }
    draw = np.random.default_rng(0)
    labels = np.repeat([NORMAL, SICK], 200)
    patients = [str(i // 2) for i in range(400)]
    hits = {name: [0, 0] for name in truth}
    for seed in range(200):
        scores = 0.8**0.5 * np.repeat(draw.normal(size=200), 2) + 0.2**0.5 * draw.normal(size=400)
        for column, unit in enumerate((patients, one_patient_each(labels))):
            estimates = detection_with_intervals(
                scores + TRUTH_SHIFT * labels, labels, unit, num_resamples=200, seed=seed
            )
            for name, estimate in estimates.items():
                hits[name][column] += estimate.low <= truth[name] <= estimate.high
    return {name: (by_patient, by_image) for name, (by_patient, by_image) in hits.items()}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_95_percent_interval_holds_the_truth_in_95_percent_of_repetitions(
    name: str, coverage: dict[str, tuple[int, int]]
) -> None:
    by_patient, by_image = coverage[name]
    # Of 200 repetitions 179 to 198 are within chance of 95 %, one time in a thousand excepted.
    low, high = binom.interval(0.999, 200, 0.95)
    assert low <= by_patient <= high
    assert by_image < by_patient


def test_the_result_depends_on_the_seed_and_not_on_the_order_of_the_images() -> None:
    scores, labels = noisy(30)
    patients = np.array([str(i // 3) for i in range(60)])
    shuffled = np.random.default_rng(2).permutation(60)
    first = detection_with_intervals(scores, labels, patients.tolist(), seed=1)
    again = detection_with_intervals(
        scores[shuffled], labels[shuffled], patients[shuffled].tolist(), seed=1
    )
    other = detection_with_intervals(scores, labels, patients.tolist(), seed=2)
    assert first == again
    assert first != other


def test_every_resample_keeps_whole_patients_and_both_classes() -> None:
    # One patient with normal images only, one with sick ones only: alone in their kind, they are in
    # every resample. Two with both: a resample holds one of them twice, or each once.
    labels = np.array([NORMAL, NORMAL, SICK, NORMAL, SICK, NORMAL, SICK, SICK])
    scores = np.array([0.2, 0.5, 0.6, 0.7, 0.3, 0.1, 0.4, 0.9])
    alone, third, fourth = [0, 1, 2], [3, 4], [5, 6, 7]
    possible = [
        roc_auc_score(labels[images], scores[images])
        for images in (alone + 2 * third, alone + third + fourth, alone + 2 * fourth)
    ]
    estimates = detection_with_intervals(scores, labels, list("aabccddd"), num_resamples=500)
    # Probabilities 1/4, 1/2 and 1/4: the interval ends at the extremes.
    assert (estimates["auroc"].low, estimates["auroc"].high) == pytest.approx(
        (min(possible), max(possible))
    )


def test_resamples_in_pieces_are_the_same_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, labels = noisy(30)
    whole = detection_with_intervals(scores, labels, one_patient_each(labels))
    monkeypatch.setattr("vaelab.metrics.detection.COUNTS_AT_ONCE", 500)
    assert detection_with_intervals(scores, labels, one_patient_each(labels)) == whole


# --- groups


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("person1000_bacteria_2931.jpeg", "bacteria"),
        ("test/PNEUMONIA/person1_virus_6.jpeg", "virus"),
        ("PERSON1_VIRUS_6.JPEG", "virus"),
        ("IM-0001-0001.jpeg", None),
        ("virus/IM-0001-0001.jpeg", None),  # a folder names no image
        ("antivirus_trial_7.png", None),
    ],
)
def test_a_file_name_may_contain_bacteria_or_virus(name: str, group: str | None) -> None:
    assert subgroup_of(name) == group


def test_each_group_is_judged_against_all_normal_images() -> None:
    scores = np.array([1.0, 2, 3, 9, 8, 0, 2])
    labels = np.array([NORMAL, NORMAL, NORMAL, SICK, SICK, SICK, SICK])
    groups = ["virus", None, None, "bacteria", "bacteria", "virus", None]
    groups_judged = subgroup_detection(scores, labels, groups)
    assert list(groups_judged) == ["bacteria", "virus"]
    assert groups_judged["bacteria"].auroc == 1.0
    assert groups_judged["virus"].auroc == 0.0
    assert groups_judged["bacteria"].counts == {"normal": 3, "sick": 2}
    assert groups_judged["virus"].counts == {"normal": 3, "sick": 1}


# --- refusals by intervals


def test_one_patient_of_a_class_is_too_few_for_an_interval() -> None:
    with pytest.raises(UserError, match=r"2 with normal and 1 with sick images\. Add patients, or"):
        detection_with_intervals(np.arange(4.0), LABELS, "abcc")

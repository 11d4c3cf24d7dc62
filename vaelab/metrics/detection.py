"""Detection: does a score tell sick from normal?

Scores are used as they come. torchmetrics' AUROC would squash scores outside [0, 1] through a
sigmoid, and perfectly separable scores of 100 to 400 would come out as 0.5.

An image is flagged when its score is at least the threshold; images that share a score are
flagged together or not at all (Fawcett 2006, section 5.1).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from sklearn.metrics import roc_curve

from vaelab.errors import UserError
from vaelab.metrics.bootstrap import Estimate, interval, patient_weights

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Counts that one go of the bootstrap holds at most: 32 MiB an array.
COUNTS_AT_ONCE = 2**22


@dataclass(frozen=True)
class AtBestTestThreshold:
    """What papers print, each at the threshold that is best for it *on the judged images*.

    No user can choose that threshold: these numbers compare with papers, and promise nothing.
    """

    accuracy: float
    """Share of images on the right side of the threshold."""
    f1: float
    """2 TP / (2 TP + FP + FN)."""


@dataclass(frozen=True)
class Detection:
    """How well scores rank sick above normal."""

    auroc: float
    """Area under the ROC curve, in [0, 1]; 0.5 is blind.

    P(sick > normal) + ½ P(sick = normal) over pairs of images (Hanley & McNeil 1982).
    """
    average_precision: float
    """Area under the precision–recall curve, in [0, 1]; the share of sick images is blind.

    Σ_k (R_k − R_{k−1}) P_k over thresholds, a step function: straight lines between its points
    would promise too much (Davis & Goadrich 2006).
    """
    sensitivity_at_specificity_90: float
    """Share of sick images flagged when at most 10 % of the normal ones are.

    Of the ROC curve's points with that specificity the most sensitive; what lies between two points
    is not interpolated. The threshold is chosen on the images it is judged on, as papers do: it
    compares scores and promises nothing of new images, for which see
    ``vaelab.anomaly.calibration``.
    """
    sensitivity_at_specificity_95: float
    """Share of sick images flagged when at most 5 % of the normal ones are."""
    counts: dict[str, int]
    """Images of each class."""
    score_quantiles: dict[str, dict[str, float]]
    """Class → quantile of its scores → score."""
    intervals_95_percent: dict[str, tuple[float, float]] | None = None
    """Name of a number above → its ends; None where they were not asked for, or with one patient of
    a class, where there is nothing to draw."""
    at_best_test_threshold: AtBestTestThreshold | None = None


def detection_metrics(scores: np.ndarray, labels: np.ndarray) -> Detection:
    """Judge anomaly scores, larger being more abnormal.

    Args:
        scores: (N,), finite.
        labels: (N,), 0 normal and 1 sick.

    Raises:
        UserError: when a class is missing or a score is not finite: no ranking exists then.
    """
    counts = _check(scores, labels)
    at_or_above = _count(scores, labels, np.ones((1, len(scores))))
    found = _statistics(at_or_above)
    return Detection(
        auroc=float(found["auroc"][0]),
        average_precision=float(found["average_precision"][0]),
        sensitivity_at_specificity_90=float(found["sensitivity_at_specificity_90"][0]),
        sensitivity_at_specificity_95=float(found["sensitivity_at_specificity_95"][0]),
        counts=counts,
        score_quantiles={
            name: {f"{q:g}": float(np.quantile(scores[labels == label], q)) for q in QUANTILES}
            for label, name in enumerate(counts)
        },
        at_best_test_threshold=_at_best_test_threshold(at_or_above),
    )


def detection_with_intervals(
    scores: np.ndarray,
    labels: np.ndarray,
    patients: Sequence[str],
    *,
    level: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """AUROC, average precision and sensitivities, each with a bootstrap confidence interval.

    Patients are drawn with replacement, all images of each coming along: images of one patient
    resemble each other, and drawing images would pretend to more evidence than there is (Rutter
    2000, Acad. Radiol. 7:413). Patients with normal images, with sick ones and with both are
    drawn apart, so that every resample has both classes. The interval holds the middle ``level``
    of the resampled values (percentile method; Efron & Tibshirani 1993, chapter 13). Thresholds
    are chosen anew in each resample.

    With few patients it covers less than ``level``: in simulations at 95 % with 150 patients of
    each class and two images of each, 93 % for every number; with 50, 92 % for AUROC and 90 % for
    average precision. Where all resamples agree, as for a perfect score, it has no width.

    Args:
        scores: (N,), finite.
        labels: (N,), 0 normal and 1 sick.
        patients: (N,), the patient of each image.
        level: confidence, in (0, 1).
        num_resamples: how many times to draw.
        seed: of the draws; the result depends on it and not on the order of the images.

    Returns:
        The names of ``Detection``'s numbers, each with its ``Estimate``.

    Raises:
        UserError: as ``detection_metrics``, and when a class has fewer than two patients.
    """
    _check(scores, labels)
    if not 0 < level < 1:
        raise UserError(f"level={level}: a confidence lies between 0 and 1; try 0.95")
    if num_resamples < 1:
        raise UserError(f"num_resamples={num_resamples}: at least one is needed; try 1000")
    assert len(patients) == len(scores)
    _check_patients(labels, patients)
    weights = patient_weights(patients, num_resamples, seed, labels)  # (1 + R, N)
    resamples = np.array_split(weights[1:], 1 + weights.size // COUNTS_AT_ONCE)
    pieces = [weights[:1], *resamples]
    drawn = [_statistics(_count(scores, labels, piece)) for piece in pieces]
    return {
        name: interval(np.concatenate([piece[name] for piece in drawn]), level) for name in drawn[0]
    }


def subgroup_indices(labels: np.ndarray, groups: Sequence[str | None]) -> dict[str, np.ndarray]:
    """Group → indices of its sick images and of all normal ones, ascending.

    Args:
        labels: (N,), 0 normal and 1 sick.
        groups: (N,), the group of each image; None is in no group. Those of normal images do
            not matter.
    """
    assert len(groups) == len(labels)
    of_image = np.array([group or "" for group in groups])
    names = sorted(set(of_image[labels == 1].tolist()) - {""})
    return {
        name: np.flatnonzero((labels == 0) | ((labels == 1) & (of_image == name))) for name in names
    }


def subgroup_detection(
    scores: np.ndarray, labels: np.ndarray, groups: Sequence[str | None]
) -> dict[str, Detection]:
    """Each group of sick images against all normal ones; arguments as in ``subgroup_indices``.

    Average precision depends on the share of sick images: compare groups by the others.
    """
    return {
        name: detection_metrics(scores[index], labels[index])
        for name, index in subgroup_indices(labels, groups).items()
    }


def subgroup_of(name: str) -> str | None:
    """``bacteria`` or ``virus`` where a file's name tells (Kermany et al. 2018), else None.

    >>> subgroup_of("test/PNEUMONIA/person1000_bacteria_2931.jpeg")
    'bacteria'
    """
    file_name = name.rpartition("/")[2].lower()
    match = re.search(r"(?<![a-z])(bacteria|virus)(?![a-z])", file_name)
    return match.group(1) if match else None


def roc_points(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates at every threshold, for a figure."""
    false_positive_rate, true_positive_rate, _ = roc_curve(labels, scores)
    return false_positive_rate, true_positive_rate


class _Counts(NamedTuple):
    """What lies at or above each threshold, in R resamples at once."""

    true: np.ndarray
    """Sick images at or above each of the K distinct scores, the largest first, (R, K)."""
    false: np.ndarray
    """Normal images at or above each, (R, K)."""


def _count(scores: np.ndarray, labels: np.ndarray, times: np.ndarray) -> _Counts:
    """Count images that occur ``times``, (R, N); whole numbers as floats, hence exact."""
    order = np.argsort(-scores, kind="stable")
    ranked, sick = scores[order], labels[order] == 1
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of each run of ties
    times = times[:, order]
    true, false = (np.cumsum(times * of_class, axis=1)[:, last] for of_class in (sick, ~sick))
    return _Counts(true, false)


def _rates(counts: _Counts) -> tuple[np.ndarray, np.ndarray]:
    """Sensitivity and specificity at each threshold, (R, K)."""
    true, false = counts
    # (N − F)/N and not 1 − F/N: 9 of 10 are then exactly the 0.9 that a user writes.
    return true / true[:, -1:], (false[:, -1:] - false) / false[:, -1:]


def _statistics(counts: _Counts) -> dict[str, np.ndarray]:
    """The numbers of ``Detection``, (R,) each."""
    true, false = counts
    more_true, more_false = (np.diff(count, axis=1, prepend=0) for count in (true, false))
    # A normal image loses against sick ones above it, and half against its equals.
    pairs_won = (more_false * (true - more_true / 2)).sum(1)
    # No image at all is at or above a threshold that a resample left out: 0/0, and no step.
    precision = true / np.maximum(true + false, 1)
    sensitive, specific = _rates(counts)
    return {
        "auroc": pairs_won / (true[:, -1] * false[:, -1]),
        "average_precision": (more_true * precision).sum(1) / true[:, -1],
        "sensitivity_at_specificity_90": np.where(specific >= 0.9, sensitive, 0).max(1),
        "sensitivity_at_specificity_95": np.where(specific >= 0.95, sensitive, 0).max(1),
    }


def _at_best_test_threshold(counts: _Counts) -> AtBestTestThreshold:
    true, false = counts.true[0], counts.false[0]
    sick, normal = true[-1], false[-1]
    right = np.append(true + normal - false, normal)  # the last: flag none
    f1 = 2 * true / (true + false + sick)  # TP + FN are all sick ones
    return AtBestTestThreshold(float(right.max() / (sick + normal)), float(f1.max()))


def _class_counts(labels: np.ndarray) -> dict[str, int]:
    counts = {"normal": int((labels == 0).sum()), "sick": int((labels == 1).sum())}
    if min(counts.values()) == 0:
        raise UserError(
            f"detection needs normal and sick images; the test split has {counts}. Add images of "
            "the missing class"
        )
    return counts


def _check_patients(labels: np.ndarray, patients: Sequence[str]) -> None:
    normal, sick = (
        len({p for p, of in zip(patients, labels, strict=True) if of == label}) for label in (0, 1)
    )
    if min(normal, sick) < 2:
        raise UserError(
            "a confidence interval needs at least two patients of each class; there are "
            f"{normal} with normal and {sick} with sick images. Add patients, or report the "
            "numbers without intervals"
        )


def _check(scores: np.ndarray, labels: np.ndarray) -> dict[str, int]:
    """Images of each class, once a ranking is known to exist."""
    counts = _class_counts(labels)
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).sum())
        raise UserError(
            f"{bad} of {len(scores)} anomaly scores are not finite; did the run diverge?"
        )
    return counts

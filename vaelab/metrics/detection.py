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

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Counts that one go of the bootstrap holds at most: 32 MiB an array.
COUNTS_AT_ONCE = 2**22


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
    """Share of sick images flagged when at most 10 % of the normal ones are; see
    ``operating_point``."""
    sensitivity_at_specificity_95: float
    """Share of sick images flagged when at most 5 % of the normal ones are."""
    counts: dict[str, int]
    """Images of each class."""
    score_quantiles: dict[str, dict[str, float]]
    """Class → quantile of its scores → score."""


@dataclass(frozen=True)
class Estimate:
    """A number and its confidence interval."""

    value: float
    """On the images as they are."""
    low: float
    high: float


class OperatingPoint(NamedTuple):
    """One point of the ROC curve."""

    threshold: float
    """Scores from here on are flagged; infinite when none may be."""
    sensitivity: float
    specificity: float


def detection_metrics(scores: np.ndarray, labels: np.ndarray) -> Detection:
    """Judge anomaly scores, larger being more abnormal.

    Args:
        scores: (N,), finite.
        labels: (N,), 0 normal and 1 sick.

    Raises:
        UserError: when a class is missing or a score is not finite: no ranking exists then.
    """
    counts = _check(scores, labels)
    found = _statistics(_count(scores, labels, np.ones((1, len(scores)))))
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
    )


def operating_point(scores: np.ndarray, labels: np.ndarray, specificity: float) -> OperatingPoint:
    """The most sensitive point of the ROC curve whose specificity is at least the one asked for.

    Conservative: points between two thresholds are not interpolated, so the specificity found
    may be higher. Of thresholds that are as sensitive the largest is taken.

    The threshold is chosen on the images it is judged on, as papers do. It compares scores and
    promises nothing of new images; for that see ``vaelab.anomaly.calibration``.

    Args:
        scores: (N,), finite.
        labels: (N,), 0 normal and 1 sick.
        specificity: least share of normal images not flagged, in [0, 1].

    Raises:
        UserError: as ``detection_metrics``.
    """
    _check(scores, labels)
    counts = _count(scores, labels, np.ones((1, len(scores))))
    sensitive, specific = (rate[0] for rate in _rates(counts))
    allowed = np.where(specific >= specificity, sensitive, 0)
    best = int(allowed.argmax())
    if allowed[best] == 0:
        return OperatingPoint(float("inf"), 0.0, 1.0)
    return OperatingPoint(
        float(counts.thresholds[best]), float(sensitive[best]), float(specific[best])
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
    _, patient = np.unique(list(patients), return_inverse=True)  # (N,)
    times = _draw_patients(labels, patient, num_resamples, seed)  # (R, patients)
    pieces = np.array_split(times, 1 + num_resamples * len(scores) // COUNTS_AT_ONCE)
    drawn = [_statistics(_count(scores, labels, piece[:, patient])) for piece in pieces]
    value = _statistics(_count(scores, labels, np.ones((1, len(scores)))))
    result = {}
    for name in value:
        resampled = np.concatenate([piece[name] for piece in drawn])  # (R,)
        low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
        result[name] = Estimate(float(value[name][0]), float(low), float(high))
    return result


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


def balanced_indices(labels: np.ndarray, seed: int) -> np.ndarray:
    """Indices, ascending, of as many normal as sick images: all of the rarer class.

    With as many of each a blind average precision is ½, whatever the data set.

    Args:
        labels: (N,), 0 normal and 1 sick.
        seed: of the draw from the more frequent class.

    Raises:
        UserError: when a class is missing.
    """
    size = min(_class_counts(labels).values())
    draw = np.random.default_rng(seed)
    chosen = [draw.choice(np.flatnonzero(labels == label), size, replace=False) for label in (0, 1)]
    return np.sort(np.concatenate(chosen))


def roc_points(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates at every threshold, for a figure."""
    false_positive_rate, true_positive_rate, _ = roc_curve(labels, scores)
    return false_positive_rate, true_positive_rate


class _Counts(NamedTuple):
    """What lies at or above each threshold, in R resamples at once."""

    thresholds: np.ndarray
    """The K distinct scores, the largest first, (K,)."""
    true: np.ndarray
    """Sick images at or above each, (R, K)."""
    false: np.ndarray
    """Normal images at or above each, (R, K)."""


def _count(scores: np.ndarray, labels: np.ndarray, times: np.ndarray) -> _Counts:
    """Count images that occur ``times``, (R, N); whole numbers as floats, hence exact."""
    order = np.argsort(-scores, kind="stable")
    ranked, sick = scores[order], labels[order] == 1
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of each run of ties
    times = times[:, order]
    true, false = (np.cumsum(times * of_class, axis=1)[:, last] for of_class in (sick, ~sick))
    return _Counts(ranked[last], true, false)


def _rates(counts: _Counts) -> tuple[np.ndarray, np.ndarray]:
    """Sensitivity and specificity at each threshold, (R, K)."""
    _, true, false = counts
    # (N − F)/N and not 1 − F/N: 9 of 10 are then exactly the 0.9 that a user writes.
    return true / true[:, -1:], (false[:, -1:] - false) / false[:, -1:]


def _statistics(counts: _Counts) -> dict[str, np.ndarray]:
    """The numbers of ``Detection``, (R,) each."""
    _, true, false = counts
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


def _draw_patients(
    labels: np.ndarray, patient: np.ndarray, num_resamples: int, seed: int
) -> np.ndarray:
    """How often each resample holds each patient, (R, patients)."""
    has = np.stack([np.bincount(patient, labels == label) > 0 for label in (0, 1)])  # (2, patients)
    if has.sum(1).min() < 2:
        normal, sick = has.sum(1).tolist()
        raise UserError(
            "a confidence interval needs at least two patients of each class; there are "
            f"{normal} with normal and {sick} with sick images. Add patients, or report the "
            "numbers without intervals"
        )
    stratum = has[0] + 2 * has[1]  # 1 normal images only, 2 sick ones only, 3 both
    draw = np.random.default_rng(seed)
    times = np.empty((num_resamples, len(stratum)))
    for members in (np.flatnonzero(stratum == kind) for kind in np.unique(stratum)):
        share = np.full(len(members), 1 / len(members))
        times[:, members] = draw.multinomial(len(members), share, num_resamples)
    return times


def _class_counts(labels: np.ndarray) -> dict[str, int]:
    counts = {"normal": int((labels == 0).sum()), "sick": int((labels == 1).sum())}
    if min(counts.values()) == 0:
        raise UserError(
            f"detection needs normal and sick images; the test split has {counts}. Add images of "
            "the missing class"
        )
    return counts


def _check(scores: np.ndarray, labels: np.ndarray) -> dict[str, int]:
    """Images of each class, once a ranking is known to exist."""
    counts = _class_counts(labels)
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).sum())
        raise UserError(
            f"{bad} of {len(scores)} anomaly scores are not finite; did the run diverge?"
        )
    return counts

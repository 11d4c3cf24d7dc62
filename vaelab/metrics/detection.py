"""Detection: how well an anomaly score separates sick from normal images.

Scores are used as they come. torchmetrics' AUROC would apply a sigmoid to scores outside [0, 1],
and perfectly separable scores of 100 to 400 would have an AUROC of 0.5.

An image is flagged when its score is at least the threshold; images that share a score are
flagged together or not at all (Fawcett 2006, section 5.1).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from sklearn.metrics import roc_curve

from vaelab.errors import UserError
from vaelab.metrics.bootstrap import Estimate, Floats, interval, patient_weights

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
COUNTS_AT_ONCE = 2**22  # of the bootstrap: 32 MiB an array


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
    """How well scores rank sick above normal images."""

    auroc: float
    """Area under the ROC curve, in [0, 1]; 0.5 is chance.

    P(sick > normal) + ½ P(sick = normal) over pairs of images (Hanley & McNeil 1982).
    """
    average_precision: float
    """Area under the precision–recall curve, in [0, 1]; the share of sick images is chance.

    Σ_k (R_k − R_{k−1}) P_k over thresholds, a step function: straight lines between its points
    would be too optimistic (Davis & Goadrich 2006).
    """
    sensitivity_at_specificity_90: float
    """Share of sick images flagged when at most 10 % of the normal ones are.

    The largest sensitivity among the points of the ROC curve with that specificity, without
    interpolation. The threshold is chosen on the images it is judged on, as papers do: it
    compares scores and promises nothing for new images, for which see
    ``vaelab.anomaly.calibration``.
    """
    sensitivity_at_specificity_95: float
    """Share of sick images flagged when at most 5 % of the normal ones are."""
    counts: dict[str, int]
    """Class → number of images."""
    score_quantiles: dict[str, dict[str, float]]
    """Class → quantile of its scores → score."""
    intervals_95_percent: dict[str, tuple[float, float]] | None = None
    """Name of a number above → its ends; None where none were asked for, or a class has only one
    patient, so that there is nothing to resample."""
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
    numbers = resampled_detection(scores, labels, np.ones((1, len(scores))))
    quantiles = {
        name: {f"{q:g}": float(np.quantile(scores[labels == label], q)) for q in QUANTILES}
        for label, name in enumerate(counts)
    }
    auroc, average_precision, at_90, at_95 = (float(value[0]) for value in numbers.values())
    return Detection(
        auroc, average_precision, at_90, at_95, counts, quantiles,
        at_best_test_threshold=_at_best_test_threshold(scores, labels),
    )  # fmt: skip


def detection_with_intervals(
    scores: np.ndarray,
    labels: np.ndarray,
    patients: Sequence[str],
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """AUROC, average precision and sensitivities, each with a 95 % bootstrap interval.

    Patients are drawn with replacement together with all their images: images of one patient
    resemble each other, and drawing images would pretend to more evidence than there is (Rutter
    2000, Acad. Radiol. 7:413). Patients with normal images, with sick ones and with both are
    drawn separately, so that every resample has both classes. The interval is that of the
    percentile method (Efron & Tibshirani 1993, chapter 13). Thresholds are chosen anew in each
    resample.

    With few patients it covers less than 95 %: in simulations with 150 patients of each class and
    two images of each, 93 % for every number; with 50, 92 % for AUROC and 90 % for average
    precision. Where all resamples agree, as for a perfect score, its width is zero.

    Args:
        scores: (N,), finite.
        labels: (N,), 0 normal and 1 sick.
        patients: (N,), the patient of each image.
        num_resamples: how many times to draw.
        seed: of the draws; the result depends on it and not on the order of the images.

    Returns:
        The names of ``Detection``'s numbers, each with its ``Estimate``.

    Raises:
        UserError: as ``detection_metrics``, and when a class has fewer than two patients.
    """
    _check(scores, labels)
    normal, sick = _patients_of_classes(labels, patients)
    if min(normal, sick) < 2:
        raise UserError(
            "a confidence interval needs at least two patients of each class; there are "
            f"{normal} with normal and {sick} with sick images. Add patients, or report the "
            "numbers without intervals"
        )
    weights = patient_weights(patients, num_resamples, seed, labels)  # (1 + R, N)
    resamples = np.array_split(weights[1:], 1 + weights.size // COUNTS_AT_ONCE)
    pieces = [weights[:1], *resamples]  # the first apart: rounded as by detection_metrics
    results = [resampled_detection(scores, labels, piece) for piece in pieces]
    return {
        name: interval(np.concatenate([result[name] for result in results])) for name in results[0]
    }


def intervals_where_possible(
    scores: np.ndarray,
    labels: np.ndarray,
    patients: Sequence[str],
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate] | None:
    """``detection_with_intervals``; None where a class has fewer than two patients."""
    if min(_patients_of_classes(labels, patients)) < 2:
        return None
    return detection_with_intervals(
        scores, labels, patients, num_resamples=num_resamples, seed=seed
    )


def _patients_of_classes(labels: np.ndarray, patients: Sequence[str]) -> tuple[int, int]:
    """How many patients have normal images, and how many have sick ones."""
    normal, sick = (len(set(compress(patients, labels == label))) for label in (0, 1))
    return normal, sick


def resampled_detection(
    scores: np.ndarray, labels: np.ndarray, weights: Floats
) -> dict[str, Floats]:
    """The numbers of ``Detection`` on resamples of the images, (R,) each.

    Args:
        scores: (N,), finite.
        labels: (N,), 0 normal and 1 sick.
        weights: how often each image occurs, (R, N); whole numbers, with both classes in each row.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, is_sick = scores[order], labels[order] == 1
    last_of_ties = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    # Sick and normal images at or above each of the K distinct scores, the largest first, (R, K).
    sick, normal = (
        np.cumsum(weights[:, order] * is_class, axis=1)[:, last_of_ties]
        for is_class in (is_sick, ~is_sick)
    )
    new_sick, new_normal = (np.diff(count, axis=1, prepend=0) for count in (sick, normal))
    # A normal image loses against the sick ones above it, and half against its equals.
    pairs_won = (new_normal * (sick - new_sick / 2)).sum(1)
    # 0/0 where a resample has no image at or above a threshold; it adds nothing.
    precision = sick / np.maximum(sick + normal, 1)
    sensitivity = sick / sick[:, -1:]
    # (N − F)/N and not 1 − F/N: 9 of 10 are then exactly the 0.9 that a user writes.
    specificity = (normal[:, -1:] - normal) / normal[:, -1:]
    return {
        "auroc": pairs_won / (sick[:, -1] * normal[:, -1]),
        "average_precision": (new_sick * precision).sum(1) / sick[:, -1],
        "sensitivity_at_specificity_90": np.where(specificity >= 0.9, sensitivity, 0).max(1),
        "sensitivity_at_specificity_95": np.where(specificity >= 0.95, sensitivity, 0).max(1),
    }


def subgroup_detection(
    scores: np.ndarray, labels: np.ndarray, groups: Sequence[str | None]
) -> dict[str, Detection]:
    """Each group of sick images against all normal images.

    Average precision depends on the share of sick images: compare groups by the other numbers.

    Args:
        scores: (N,), finite.
        labels: (N,), 0 normal and 1 sick.
        groups: (N,), the group of each image, or None; those of normal images are ignored.
    """
    of_image = np.array([group or "" for group in groups])
    members = {
        name: (labels == 0) | (of_image == name)
        for name in sorted(set(of_image[labels == 1].tolist()) - {""})
    }
    return {name: detection_metrics(scores[rows], labels[rows]) for name, rows in members.items()}


def subgroup_of(name: str) -> str | None:
    """``bacteria`` or ``virus`` if the file's name contains it (Kermany et al. 2018), else None.

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


def _at_best_test_threshold(scores: np.ndarray, labels: np.ndarray) -> AtBestTestThreshold:
    # From the threshold that flags none on.
    false_rate, true_rate, _ = roc_curve(labels, scores, drop_intermediate=False)
    sick, normal = int((labels == 1).sum()), int((labels == 0).sum())
    true, false = true_rate * sick, false_rate * normal
    right, f1 = true + normal - false, 2 * true / (true + false + sick)  # TP + FN are all sick ones
    return AtBestTestThreshold(float(right.max() / (sick + normal)), float(f1.max()))


def _check(scores: np.ndarray, labels: np.ndarray) -> dict[str, int]:
    """Images of each class; raises ``UserError`` where no ranking exists."""
    counts = {"normal": int((labels == 0).sum()), "sick": int((labels == 1).sum())}
    if min(counts.values()) == 0:
        raise UserError(
            f"detection needs normal and sick images; the test split has {counts}. Add images of "
            "the missing class"
        )
    not_finite = int((~np.isfinite(scores)).sum())
    if not_finite:
        raise UserError(
            f"{not_finite} of {len(scores)} anomaly scores are not finite; did the run diverge?"
        )
    return counts

"""Detection: does a score tell sick from normal?

scikit-learn does the counting. torchmetrics' AUROC would squash scores outside [0, 1] through
a sigmoid, and perfectly separable scores of 100 to 400 would come out as 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from vaelab.errors import UserError

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Detection:
    """How well scores rank sick above normal."""

    auroc: float
    """Area under the ROC curve, in [0, 1]; 0.5 is blind."""
    average_precision: float
    """Area under the precision–recall curve as a step function, in [0, 1]."""
    counts: dict[str, int]
    """Images of each class."""
    score_quantiles: dict[str, dict[str, float]]
    """Class → quantile of its scores → score."""


def detection_metrics(scores: np.ndarray, labels: np.ndarray) -> Detection:
    """Judge anomaly scores, larger being more abnormal.

    Args:
        scores: (N,), finite.
        labels: (N,), 0 normal and 1 sick.

    Raises:
        UserError: when a class is missing or a score is not finite: no ranking exists then.
    """
    counts = {"normal": int((labels == 0).sum()), "sick": int((labels == 1).sum())}
    if min(counts.values()) == 0:
        raise UserError(f"detection needs normal and sick images; the test split has {counts}")
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).sum())
        raise UserError(
            f"{bad} of {len(scores)} anomaly scores are not finite; did the run diverge?"
        )
    return Detection(
        auroc=float(roc_auc_score(labels, scores)),
        average_precision=float(average_precision_score(labels, scores)),
        counts=counts,
        score_quantiles={
            name: {f"{q:g}": float(np.quantile(scores[labels == label], q)) for q in QUANTILES}
            for label, name in enumerate(counts)
        },
    )


def roc_points(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates at every threshold, for a figure."""
    false_positive_rate, true_positive_rate, _ = roc_curve(labels, scores)
    return false_positive_rate, true_positive_rate

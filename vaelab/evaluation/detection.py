"""Detection on the judged images of a run: numbers, subgroups, decisions."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

import numpy as np

from vaelab.evaluation.calibrating import Calibrated
from vaelab.evaluation.predictions import Predictions
from vaelab.evaluation.results import Decisions
from vaelab.metrics.detection import (
    Detection,
    detection_metrics,
    intervals_where_possible,
    subgroup_detection,
    subgroup_of,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bootstrap:
    """Of the intervals."""

    num_resamples: int
    seed: int


def detect(
    predictions: Predictions, chosen: Collection[str] | None, bootstrap: Bootstrap
) -> Detection:
    """Detection with intervals, where each class has two patients.

    Args:
        predictions: with labels.
        chosen: ids to judge by; None takes all.
        bootstrap: of the intervals.
    """
    assert predictions.labels is not None
    wanted = np.array([chosen is None or name in chosen for name in predictions.ids])
    scores, labels = predictions.score[wanted], predictions.labels[wanted]
    patients = list(compress(predictions.patients, wanted))
    found = detection_metrics(scores, labels)
    estimates = intervals_where_possible(
        scores, labels, patients, bootstrap.num_resamples, bootstrap.seed
    )
    if estimates is None:
        return found
    ends = {name: (estimate.low, estimate.high) for name, estimate in estimates.items()}
    return replace(found, intervals_95_percent=ends)


def detect_by_group(predictions: Predictions) -> dict[str, Detection]:
    """Each group of sick images, as far as names tell, against all normal ones."""
    assert predictions.labels is not None
    groups = [subgroup_of(Path(identifier).name) for identifier in predictions.ids]
    return subgroup_detection(predictions.score, predictions.labels, groups)


def decide(predictions: Predictions, calibrated: Calibrated, alpha: float) -> Decisions:
    """Which images are flagged at ``alpha``; the log warns where none can be."""
    assert predictions.labels is not None
    calibration = calibrated.calibration
    flagged = calibration.flag(predictions.score, alpha)
    warning = calibration.warning(alpha)
    if warning:
        log.warning("%s", warning)
    threshold = calibration.threshold(alpha)
    return Decisions(
        alpha=alpha,
        calibration=calibrated.source,
        calibration_images=calibration.count,
        threshold=threshold if np.isfinite(threshold) else None,
        expected_false_alarm_rate=calibration.false_alarm_rate(alpha),
        false_alarm_rate_95_percent_range=calibration.false_alarm_range(alpha),
        false_alarm_rate=float(flagged[predictions.labels == 0].mean()),
        sensitivity=float(flagged[predictions.labels == 1].mean()),
    )

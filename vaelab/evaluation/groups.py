"""Detection within groups: is it the disease that a score ranks by, or what goes with it?

Where normal images are mostly of one view and sick ones of another, a score that knows the view
alone ranks well. Within a group it cannot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, pairwise

import numpy as np

from vaelab.data.groups import Groups
from vaelab.evaluation.predictions import Predictions
from vaelab.metrics.bootstrap import Estimate
from vaelab.metrics.detection import detection_metrics, intervals_where_possible

BANDS = 3
"""Bands that a column of numbers is cut into, as equal in size as ties allow."""
FEWEST_VALUES = 6
"""Distinct numbers from which on a column is cut."""
UNKNOWN = "not known"


@dataclass(frozen=True)
class GroupDetection:
    """How well the score ranks within a group."""

    normal: int
    """Images."""
    sick: int
    auroc: Estimate | None
    """With its 95 % interval by patient; None where a class has fewer than two patients."""


@dataclass(frozen=True)
class DetectionWithin:
    """One column of the table of groups."""

    label_alone: float | None
    """AUROC of the group label: images are ranked by the share of sick ones in their group. The
    share is of the judged images themselves, so it is 0.5 or more. Where the label is not known an
    image does not count; None where a class then has none."""
    groups: dict[str, GroupDetection]


def detect_within(
    predictions: Predictions, groups: Groups, num_resamples: int, seed: int
) -> dict[str, DetectionWithin]:
    """Column → detection within each of its groups.

    Args:
        predictions: with labels of both classes.
        groups: of these images and others.
        num_resamples: of the bootstrap over patients.
        seed: of the same.
    """
    return {
        column: _within(predictions, _labels(predictions.ids, known), num_resamples, seed)
        for column, known in groups.items()
    }


def _within(
    predictions: Predictions, groups: Sequence[str], num_resamples: int, seed: int
) -> DetectionWithin:
    labels = predictions.labels
    assert labels is not None
    of_image = np.array(groups)
    names = _in_order(groups)
    share = {name: float(labels[of_image == name].mean()) for name in names}
    found = {}
    for name in names:
        inside = of_image == name
        scores, own = predictions.score[inside], labels[inside]
        patients = list(compress(predictions.patients, inside))
        estimates = intervals_where_possible(scores, own, patients, num_resamples, seed)
        auroc = estimates["auroc"] if estimates else None
        found[name] = GroupDetection(int((own == 0).sum()), int((own == 1).sum()), auroc)
    known = of_image != UNKNOWN
    alone = None
    if len(set(labels[known].tolist())) == 2:
        by_group = np.array([share[name] for name in groups])
        alone = detection_metrics(by_group[known], labels[known]).auroc
    return DetectionWithin(alone, found)


def _labels(ids: Sequence[str], known: Mapping[str, str]) -> list[str]:
    """The group of each image; a column of numbers is cut into parts."""
    values = [known.get(identifier, "") for identifier in ids]
    numbers = [_number(value) for value in values if value]
    if any(number is None for number in numbers) or len(set(numbers)) < FEWEST_VALUES:
        return [value or UNKNOWN for value in values]
    finite = np.array([number for number in numbers if number is not None])
    edges = np.unique(np.quantile(finite, np.arange(1, BANDS) / BANDS, method="lower"))
    names = [f"up to {edges[0]:g}"]
    names += [f"above {low:g} to {high:g}" for low, high in pairwise(edges)]
    names += [f"above {edges[-1]:g}"]
    return [
        UNKNOWN if not value else names[int(np.searchsorted(edges, float(value), side="left"))]
        for value in values
    ]


def _in_order(groups: Sequence[str]) -> list[str]:
    """Names as a reader expects them: by number where they hold one, what is not known last."""

    def key(name: str) -> tuple[bool, bool, float, str]:
        numbers = [n for n in map(_number, name.split()) if n is not None]
        starts_low = not name.startswith("up to")
        return name == UNKNOWN, starts_low, numbers[0] if numbers else 0.0, name

    return sorted(dict.fromkeys(groups), key=key)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None

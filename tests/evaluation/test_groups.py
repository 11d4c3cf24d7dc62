"""Claims about detection within groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from vaelab.evaluation.groups import UNKNOWN, DetectionWithin, detect_within
from vaelab.evaluation.predictions import Predictions


def predictions(scores: Sequence[float], labels: Sequence[int]) -> Predictions:
    ids = [str(n) for n in range(len(scores))]
    nothing = torch.zeros(len(scores), 1)
    return Predictions(
        ids, ids, np.array(labels), nothing, nothing, nothing[:, 0],
        np.array(scores, np.float32), [], {}, None,
    )  # fmt: skip


def within(
    scores: Sequence[float], labels: Sequence[int], values: Sequence[str]
) -> DetectionWithin:
    groups = {"view": {str(n): value for n, value in enumerate(values) if value}}
    return detect_within(predictions(scores, labels), groups, num_resamples=20, seed=0)["view"]


# Of 10 normal images 8 are PA, of 10 sick ones 8 are AP; a score that knows the view alone.
LABELS = [0] * 10 + [1] * 10
VIEWS = ["PA"] * 8 + ["AP"] * 2 + ["PA"] * 2 + ["AP"] * 8
BY_VIEW = [float(view == "AP") for view in VIEWS]


def test_a_score_that_knows_the_group_alone_is_found_out():
    found = within(BY_VIEW, LABELS, VIEWS)
    # Pairs won 8/10 · 8/10, lost 2/10 · 2/10, half of the rest.
    assert found.label_alone == pytest.approx(0.64 + (1 - 0.64 - 0.04) / 2)
    for name, counts in (("PA", (8, 2)), ("AP", (2, 8))):
        group = found.groups[name]
        assert (group.normal, group.sick) == counts
        assert group.auroc is not None
        assert group.auroc.value == 0.5


def test_a_perfect_score_is_perfect_within_each_group():
    found = within([float(label) for label in LABELS], LABELS, VIEWS)
    assert [group.auroc.value for group in found.groups.values() if group.auroc] == [1, 1]


def test_a_group_with_one_patient_of_a_class_is_counted_and_not_ranked():
    found = within(BY_VIEW, LABELS, ["L", *VIEWS[1:19], ""])
    assert (found.groups["L"].normal, found.groups["L"].sick, found.groups["L"].auroc) == (
        1,
        0,
        None,
    )
    assert list(found.groups)[-1] == UNKNOWN


def test_what_is_not_known_is_no_label():
    """Else the sick images of another source, of which no view is known, would tell themselves."""
    found = within(BY_VIEW, LABELS, [*VIEWS[:10], *[""] * 8, "PA", "AP"])
    # 8 normal PA and 2 AP, one sick one of each; shares 1/9 and 1/3.
    assert found.label_alone == pytest.approx((0.5 * 8 / 10) / 2 + (8 / 10 + 0.5 * 2 / 10) / 2)


def test_numbers_are_cut_into_thirds():
    ages = [str(20 + n) for n in range(20)]  # 20 to 39
    found = within(BY_VIEW, LABELS, ages)
    assert list(found.groups) == ["up to 26", "above 26 to 32", "above 32"]
    assert [g.normal + g.sick for g in found.groups.values()] == [7, 6, 7]
    few = within(BY_VIEW, LABELS, ["1", "2"] * 10)
    assert list(few.groups) == ["1", "2"]  # no numbers, but names

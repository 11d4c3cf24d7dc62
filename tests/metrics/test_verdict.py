"""Words that follow from an interval and a threshold."""

from __future__ import annotations

import math

import pytest

from vaelab.metrics.bootstrap import Estimate
from vaelab.metrics.verdict import overall, verdict


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.75, 0.9, "stable"),
        (0.74, 0.9, "undecided"),
        (0.5, 0.75, "undecided"),
        (0.5, 0.74, "not stable"),
        (math.nan, math.nan, "undecided"),
    ],
)
def test_the_whole_interval_decides(low: float, high: float, word: str) -> None:
    assert verdict(Estimate(0.75, low, high), threshold=0.75) == word


def test_one_failure_fails_all_and_one_doubt_leaves_a_doubt() -> None:
    assert overall(["stable", "stable"]) == "stable"
    assert overall(["stable", "undecided"]) == "undecided"
    assert overall(["stable", "undecided", "not stable"]) == "not stable"
    assert overall([]) == "undecided"

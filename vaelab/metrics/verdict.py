"""Whether an estimate is above a threshold, given its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from vaelab.metrics.bootstrap import Estimate

Verdict = Literal["stable", "not stable", "undecided"]


def verdict(estimate: Estimate, threshold: float) -> Verdict:
    """Stable when the whole interval is at or above the threshold, not stable when it is below.

    Undecided when the interval contains the threshold or is not finite.
    """
    if estimate.low >= threshold:
        return "stable"
    return "not stable" if estimate.high < threshold else "undecided"


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """Not stable when any is not; stable when all are; else undecided."""
    if "not stable" in verdicts:
        return "not stable"
    return "stable" if set(verdicts) == {"stable"} else "undecided"

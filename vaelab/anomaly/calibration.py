"""From a score to a p-value: how unusual is this image among healthy ones?

A threshold needs healthy images that training did not see, and no sick ones. A "best F1" on
validation data without sick images would flag all or nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta

from vaelab.errors import UserError


@dataclass(frozen=True, eq=False)
class ConformalCalibration:
    """Conformal p-values of anomaly scores (Vovk et al. 2005; Bates et al. 2023).

    p(s) = (1 + #{calibration scores ≥ s}) / (n + 1). If a new normal image and the n calibration
    images are exchangeable, then P(p ≤ α) ≤ α for every α, whatever the score's distribution:
    of normal images at most a share α is flagged. That is so on average over calibration sets
    (marginally); for one set the share varies as ``false_alarm_range`` tells. Ties only make
    p larger.

    Exchangeable means: from the same hospitals and scanners, prepared alike, one image per patient
    (several resemble each other and count for less than n), and used neither to train nor to choose
    between models. Where checkpoints were chosen on these images, their scores are a little too
    low, and false alarms a little too many.

    Args:
        scores: of held-out normal images, (n,) with n at least 1, finite; kept in ascending order.

    Raises:
        UserError: when there is no score, or one is not finite.
    """

    scores: np.ndarray

    def __post_init__(self) -> None:
        scores = np.sort(np.asarray(self.scores, dtype=np.float64).ravel())
        if scores.size == 0:
            raise UserError(
                "no calibration score; hold out at least one normal image (dataset.val_split)"
            )
        bad = int((~np.isfinite(scores)).sum())
        if bad:
            raise UserError(
                f"{bad} of {len(scores)} calibration scores are not finite; did the run diverge?"
            )
        scores.setflags(write=False)
        object.__setattr__(self, "scores", scores)

    @property
    def count(self) -> int:
        """Calibration scores, n."""
        return len(self.scores)

    @property
    def smallest_alpha(self) -> float:
        """The smallest p-value there is, 1/(n + 1): no image is flagged at a smaller alpha."""
        return 1 / (self.count + 1)

    def p_value(self, score: ArrayLike) -> np.ndarray:
        """p-value of each score in [1/(n + 1), 1]; small is abnormal.

        Args:
            score: a number or an array; infinity is allowed.

        Returns:
            float64, shaped like ``score``.

        Raises:
            UserError: for a score that is not a number, which has no rank.
        """
        score = np.asarray(score, dtype=np.float64)
        missing = int(np.isnan(score).sum())
        if missing:
            raise UserError(
                f"{missing} of {score.size} anomaly scores are not a number; did the run diverge?"
            )
        as_large = self.count - np.searchsorted(self.scores, score, side="left")
        return np.asarray((1 + as_large) / (self.count + 1))

    def flag(self, score: ArrayLike, alpha: float) -> np.ndarray:
        """Which scores are abnormal at level ``alpha``: p ≤ alpha; bool, shaped like ``score``.

        Args:
            score: a number or an array.
            alpha: highest tolerated share of normal images flagged, in (0, 1).

        Raises:
            UserError: for a score that is not a number or an alpha outside (0, 1).
        """
        check_alpha(alpha)
        return np.asarray(self.p_value(score) <= alpha)

    def threshold(self, alpha: float) -> float:
        """The score *above* which images are flagged at ``alpha``; not at it.

        Infinite when alpha < 1/(n + 1); ``warning`` then says what to do.

        Raises:
            UserError: for an alpha outside (0, 1).
        """
        tolerated = self._tolerated(alpha)
        return float(self.scores[self.count - tolerated]) if tolerated else float("inf")

    def warning(self, alpha: float) -> str | None:
        """A sentence for the user when nothing can be flagged at ``alpha``, else None."""
        if self._tolerated(alpha):
            return None
        needed = int(np.ceil(1 / alpha)) - 1
        usable = np.ceil(self.smallest_alpha * 1e6) / 1e6  # rounded up, or it would not do
        return (
            f"task.alpha={alpha:g}: nothing can be flagged, since {self.count} calibration images "
            f"give p-values from 1/{self.count + 1} on; set task.alpha to {usable:g} or more, or "
            f"calibrate on at least {needed} normal images"
        )

    def false_alarm_rate(self, alpha: float) -> float:
        """Share of normal images flagged, averaged over calibration sets: ⌊α (n + 1)⌋/(n + 1).

        Exact for a continuous score; ties make it smaller.
        """
        return self._tolerated(alpha) / (self.count + 1)

    def false_alarm_range(self, alpha: float, level: float = 0.95) -> tuple[float, float]:
        """Where this set's own share of normal images flagged lies, with probability ``level``.

        With k = ⌊α (n + 1)⌋ that share is drawn from Beta(k, n + 1 − k), independent images and a
        continuous score provided (Vovk 2012, arXiv:1209.2673): n = 100 and α = 0.05 give 1.6 to
        9.9 %.

        Returns:
            The central interval; (0, 0) when nothing can be flagged.
        """
        tolerated = self._tolerated(alpha)
        if not tolerated:
            return 0.0, 0.0
        low, high = beta.interval(level, tolerated, self.count + 1 - tolerated)
        return float(low), float(high)

    def to_json(self) -> dict[str, Any]:
        """Content for a JSON file: ``count`` and ``scores``, ascending."""
        return {"count": self.count, "scores": self.scores.tolist()}

    @classmethod
    def from_json(cls, content: Any, path: str | Path) -> ConformalCalibration:
        """What ``to_json`` gave, read from ``path``.

        Raises:
            UserError: naming the file, when it does not hold that.
        """
        cure = "calibrate the run anew"
        scores = content.get("scores") if isinstance(content, dict) else None
        if not isinstance(scores, list) or not _all_numbers(scores):
            raise UserError(f"{path}: holds no list of numbers under 'scores'; {cure}")
        if content.get("count") != len(scores):
            raise UserError(
                f"{path}: count is {content.get('count')}, but there are {len(scores)} scores; the "
                f"file is incomplete or was edited: {cure}"
            )
        try:
            return cls(np.array(scores))
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    def _tolerated(self, alpha: float) -> int:
        """How many ranks of n + 1 are flagged, ⌊α (n + 1)⌋, exactly as ``flag`` compares."""
        check_alpha(alpha)
        # Not int(alpha * (n + 1)): 0.29 · 100 is 28.999999999999996.
        p_values = np.arange(1, self.count + 1) / (self.count + 1)
        return int((p_values <= alpha).sum())


def check_alpha(alpha: float) -> None:
    """Raise ``UserError`` unless alpha lies strictly between 0 and 1."""
    if not 0 < alpha < 1:
        raise UserError(
            f"task.alpha={alpha}: the tolerated share of false alarms must lie between 0 and 1, "
            "both excluded; try 0.05"
        )


def _all_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)

"""The shift alarm: do new images look like those that p-values were calibrated on?

Conformal p-values hold for images that are exchangeable with the calibration's. Three tests ask
whether they are: of scores, of latents and of intensities. Together they raise a false alarm with a
probability of at most ``LEVEL``, in samples of any size and whatever the distributions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from vaelab.anomaly.detector import Prediction
from vaelab.data.index import Record
from vaelab.errors import UserError
from vaelab.metrics.image import intensity_statistics
from vaelab.metrics.two_sample import energy_test, smallest_p

LEVEL = 0.01
"""Probability of a false alarm, at most, over all three tests."""
PERMUTATIONS = 1999
MOST = 500
"""Images of either side that are compared; of more, an arbitrary choice."""
SEED = 0

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Seen:
    """What is compared of N images, one of each patient."""

    scores: Floats
    """(N,)."""
    latents: Floats
    """mu, (N, z), in standard deviations of the prior."""
    intensity: Floats
    """See ``vaelab.metrics.image.intensity_statistics``, (N, C · S)."""

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: Any) -> Seen:
        return Seen(self.scores[rows], self.latents[rows], self.intensity[rows])

    @classmethod
    def of(cls, x: Tensor, prediction: Prediction) -> Seen:
        """Of a batch, (B, C, ...)."""
        return cls(
            prediction.score.double().numpy(),
            prediction.output.mu.double().numpy(),
            intensity_statistics(x).flatten(1).double().numpy(),
        )

    @classmethod
    def joined(cls, parts: Sequence[Seen]) -> Seen:
        """One after another; at least one."""
        return cls(
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.latents for part in parts]),
            np.concatenate([part.intensity for part in parts]),
        )

    def to_json(self) -> dict[str, Any]:
        """Latents and intensities, six digits of each; scores are the calibration's own."""
        return {
            "latents": [[float(f"{v:.6g}") for v in row] for row in self.latents.tolist()],
            "intensity": [[float(f"{v:.6g}") for v in row] for row in self.intensity.tolist()],
        }

    @classmethod
    def from_json(cls, scores: Floats, content: Any, path: object) -> Seen:
        """What ``to_json`` gave.

        Raises:
            UserError: naming the file, when it does not hold that.
        """
        try:
            latents, intensity = (np.array(content[key], float) for key in ("latents", "intensity"))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: holds no table under 'seen'; calibrate anew") from error
        if not (latents.ndim == intensity.ndim == 2 and len(latents) == len(intensity)):
            raise UserError(f"{path}: tables under 'seen' do not fit; calibrate anew")
        return cls(scores, latents, intensity)


class NormalsSeen:
    """Collects what is compared of the normal images of a split, the first of each patient.

    Args:
        records: of the split. Where batches have no labels, all images count as normal.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self._patients = {record["id"]: record["patient"] for record in records}
        self._first: dict[str, Seen] = {}

    def add(self, batch: Mapping[str, Any], prediction: Prediction) -> None:
        """Take note of a batch."""
        labels = batch["label"].tolist() if "label" in batch else [0] * len(batch["id"])
        patients = [self._patients[identifier] for identifier in batch["id"]]
        wanted = [
            place
            for place, (label, patient) in enumerate(zip(labels, patients, strict=True))
            if label == 0 and patient not in self._first
        ]
        if wanted:
            seen = Seen.of(batch["image"], prediction)
            for place in wanted:
                self._first.setdefault(patients[place], seen[[place]])

    def result(self) -> Seen | None:
        """All of them; None of no image."""
        return Seen.joined(list(self._first.values())) if self._first else None


@dataclass(frozen=True)
class ShiftAlarm:
    """Whether images look like those of the calibration."""

    calibration: str
    """In words, the images compared with."""
    images: int
    """Of different patients."""
    level: float
    """Probability of a false alarm, at most."""
    p_values: dict[str, float]
    """Of scores, latents and intensity, each times their number (Bonferroni), at most 1."""
    enough_images: bool
    """Whether so few images could have raised an alarm at all."""
    alarm: bool

    @property
    def verdict(self) -> str:
        """Whether p-values hold: "no", "unknown", or "no difference found"."""
        if self.alarm:
            return "no"
        return "no difference found" if self.enough_images else "unknown"

    def sentence(self) -> str:
        """What that means for p-values."""
        if self.alarm:
            unlike = ", ".join(name for name, p in self.p_values.items() if p <= self.level)
            return (
                f"p-values do not hold: these {self.images} images are unlike the "
                f"{self.calibration} that they were calibrated on ({unlike}; level "
                f"{self.level:g}); they are of another machine or population, or, where nobody has "
                "labelled them, many are sick. Calibrate on normal images of their machine with "
                "task=calibrate"
            )
        if not self.enough_images:
            return (
                f"{self.images} images are too few to tell whether they are like the "
                f"{self.calibration} that p-values were calibrated on"
            )
        return (
            f"no difference found between these {self.images} images and the {self.calibration} "
            f"that p-values were calibrated on (level {self.level:g})"
        )


def compare(reference: Seen, source: str, new: Seen) -> ShiftAlarm:
    """Test whether new images are exchangeable with those of a calibration.

    Args:
        reference: of the calibration.
        source: in words, which these are.
        new: one image of each patient.
    """
    one, other = (_some(seen, SEED + place) for place, seen in enumerate((reference, new)))
    n = len(one)
    ranks = rankdata(np.concatenate([one.scores, other.scores]))[:, None]
    views = {
        "scores": (ranks[:n], ranks[n:]),
        "latents": (one.latents, other.latents),
        "intensity": _standardised(one.intensity, other.intensity),
    }
    p_values = {
        name: min(1.0, len(views) * energy_test(*sides, PERMUTATIONS, SEED))
        for name, sides in views.items()
    }
    return ShiftAlarm(
        calibration=source,
        images=len(new),
        level=LEVEL,
        p_values=p_values,
        enough_images=len(views) * smallest_p(n, len(other)) <= LEVEL,
        alarm=min(p_values.values()) <= LEVEL,
    )


def _some(seen: Seen, seed: int) -> Seen:
    if len(seen) <= MOST:
        return seen
    return seen[np.sort(np.random.default_rng(seed).choice(len(seen), MOST, replace=False))]


def _standardised(one: Floats, other: Floats) -> tuple[Floats, Floats]:
    """Each column by mean and deviation of both samples together, whose order does not matter."""
    both = np.concatenate([one, other])
    deviation = both.std(0)
    both = (both - both.mean(0)) / np.where(deviation > 0, deviation, 1)
    return both[: len(one)], both[len(one) :]

"""Localisation: how well a heat map marks the lesion.

A pixel (or voxel) is flagged when its value is at least the threshold. Choose the threshold on
validation volumes and apply it to test volumes: the best Dice *on the test split* ("⌈Dice⌉", Baur
et al. 2021) is an upper bound that no user reaches.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from vaelab.errors import UserError
from vaelab.metrics.histogram import BINS, ValueHistogram, bins_of, check_finite, lower_edges


class BestDice(NamedTuple):
    """The threshold with the largest Dice, and that Dice."""

    threshold: float
    dice: float
    """On the pixels that the threshold was chosen on: too optimistic to be a result."""


class Bracketed(NamedTuple):
    """A number and bounds of its exact value; not a confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LesionCount:
    """Detected lesions and false alarms; counts of several volumes add up.

    ``sum((count_lesions(...) for ...), LesionCount())`` is that of a cohort, one point of its
    free-response ROC curve.
    """

    lesions: int = 0
    found: int = 0
    false_positives: int = 0
    """Connected flagged components that touch no lesion."""
    volumes: int = 0

    def __add__(self, other: LesionCount) -> LesionCount:
        return LesionCount(
            self.lesions + other.lesions,
            self.found + other.found,
            self.false_positives + other.false_positives,
            self.volumes + other.volumes,
        )

    @property
    def sensitivity(self) -> float | None:
        """Share of lesions found; None when there is none to find."""
        return self.found / self.lesions if self.lesions else None

    @property
    def false_positives_per_volume(self) -> float | None:
        """Mean number of false alarms; None when there is no volume."""
        return self.false_positives / self.volumes if self.volumes else None


def count_lesions(heatmap: np.ndarray, mask: np.ndarray, threshold: float) -> LesionCount:
    """Lesions of an image or volume, and how many of them the map detects.

    Lesions are connected components of the mask; pixels that share a face, an edge or a corner
    are connected (8 neighbours in 2D, 26 in 3D). A lesion is detected when a pixel of it is
    flagged. A false alarm is a connected component of flagged pixels without a lesion pixel.

    Args:
        heatmap: finite, larger is more abnormal, (H, W) or (D, H, W).
        mask: lesion where non-zero, shaped like ``heatmap``.
        threshold: pixels with at least this value are flagged.
    """
    assert heatmap.shape == mask.shape
    check_finite(heatmap)
    lesion = mask != 0
    # As float64: a float32 map would have the threshold rounded, and a pixel at it lost.
    flagged = heatmap.astype(np.float64, copy=False) >= threshold
    with_corners = ndimage.generate_binary_structure(mask.ndim, mask.ndim)
    lesion_labels, lesions = ndimage.label(lesion, with_corners)
    alarm_labels, alarms = ndimage.label(flagged, with_corners)
    both = lesion & flagged
    detected, true_alarms = (
        len(np.unique(labels[both])) for labels in (lesion_labels, alarm_labels)
    )
    return LesionCount(int(lesions), detected, int(alarms) - true_alarms, volumes=1)


def pointing(heatmap: np.ndarray, mask: np.ndarray) -> float:
    """Whether a map's largest value lies in the lesion: 1 or 0, of several largest their share.

    Args:
        heatmap: finite.
        mask: lesion where non-zero, shaped like ``heatmap``.
    """
    assert heatmap.shape == mask.shape
    check_finite(heatmap)
    return float((mask[heatmap == heatmap.max()] != 0).mean())


@dataclass(frozen=True, eq=False)
class PixelHistogram:
    """How often map values occur inside and outside lesions.

    Any number of volumes fits in the memory of one histogram::

        histogram = PixelHistogram()
        for heatmap, mask in volumes:
            histogram = histogram.add(heatmap, mask)

    Dice at the edge of a bin is exact. The order of values within a bin is lost;
    ``average_precision`` gives bounds for it.
    """

    inside: ValueHistogram = field(default_factory=ValueHistogram)
    """Of lesion pixels."""
    outside: ValueHistogram = field(default_factory=ValueHistogram)
    """Of all others."""

    def __add__(self, other: PixelHistogram) -> PixelHistogram:
        return PixelHistogram(self.inside + other.inside, self.outside + other.outside)

    def add(self, maps: np.ndarray, masks: np.ndarray) -> PixelHistogram:
        """A histogram with these pixels counted too.

        Args:
            maps: finite, larger is more abnormal, any shape.
            masks: lesion where non-zero, shaped like ``maps``; may be empty.

        Raises:
            UserError: when a value is not finite.
        """
        assert maps.shape == masks.shape
        lesion = masks != 0
        return PixelHistogram(self.inside.add(maps[lesion]), self.outside.add(maps[~lesion]))

    def add_counts(
        self, values: np.ndarray, lesion: np.ndarray, others: np.ndarray
    ) -> PixelHistogram:
        """With one map, seen over many masks.

        Args:
            values: the map, finite.
            lesion: in how many masks each pixel is lesion, whole numbers.
            others: in how many it is not.
        """
        return PixelHistogram(self.inside.add(values, lesion), self.outside.add(values, others))

    @property
    def lesion_share(self) -> float:
        """Share of pixels that are lesion: the average precision of chance."""
        return self.inside.total / (self.inside.total + self.outside.total)

    def average_precision(self) -> Bracketed:
        """Average precision as if the values of a bin were equal, and bounds of the exact one.

        Unlike AUROC it is not flattered by the many easy pixels of healthy tissue (Davis & Goadrich
        2006).

        With T lesion and F other pixels in the bins above, a bin of i and o adds to P · AP, P
        being all lesion pixels, i times the precision (T + i)/(T + i + F + o). Whatever the order
        and the ties within it, the precision at each of its lesion pixels is at least
        (T + 1)/(T + 1 + F + o) and at most (T + i)/(T + i + F).

        Raises:
            UserError: when no pixel is lesion.
        """
        self._check_lesion()
        # The most abnormal bin first.
        inside, outside = self.inside.counts[::-1], self.outside.counts[::-1]
        true, false = np.cumsum(inside), np.cumsum(outside)
        value, low, high = (
            # A bin without lesion pixels may be 0/0, and adds nothing.
            float((inside * of_bin / np.maximum(of_bin + others, 1)).sum() / true[-1])
            for of_bin, others in (
                (true, false), (true - inside + 1, false), (true, false - outside),
            )
        )  # fmt: skip
        return Bracketed(value, low, high)

    def best_dice_threshold(self) -> BestDice:
        """The edge of a bin with the largest Dice over all pixels; of equals, the largest.

        Dice = 2 TP / (2 TP + FP + FN). A threshold between two edges may be better.

        Raises:
            UserError: when no pixel is lesion.
        """
        self._check_lesion()
        true, false = (np.cumsum(part.counts[::-1]) for part in (self.inside, self.outside))
        dice = 2 * true / (true[-1] + true + false)  # at the edges, the last one first
        best = int(dice.argmax())
        return BestDice(float(lower_edges(BINS - 1 - best)), float(dice[best]))

    def flagged(self, threshold: float) -> tuple[int, int]:
        """Flagged lesion pixels and other flagged pixels, at the lower edge of a bin."""
        first = int(bins_of(threshold))
        return int(self.inside.counts[first:].sum()), int(self.outside.counts[first:].sum())

    def _check_lesion(self) -> None:
        if not self.inside.total:
            raise UserError(
                "localisation needs lesions; the masks have no pixel of any. Judge volumes with a "
                "segmentation"
            )

"""Localisation: does a heat map light up where the lesion is?

A pixel (or voxel) is flagged when its value is at least the threshold. Choose the threshold on
validation volumes and apply it to test ones: the best Dice *on the test split* ("⌈Dice⌉", Baur et
al. 2021) is a bound that no user reaches.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from vaelab.errors import UserError
from vaelab.metrics.histogram import BINS, ValueHistogram, bins_of, lower_edges


class BestDice(NamedTuple):
    """A threshold and what it was chosen for."""

    threshold: float
    dice: float
    """On the pixels that the threshold was chosen on; too good for a result."""


class Bracketed(NamedTuple):
    """A number known up to rounding; no confidence interval."""

    value: float
    low: float
    """The exact number is no smaller,"""
    high: float
    """and no larger."""


@dataclass(frozen=True)
class LesionCount:
    """Lesions found and false alarms; those of several volumes add up.

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


def count_lesions(
    heatmap: np.ndarray, mask: np.ndarray, threshold: float, min_share: float = 0.0
) -> LesionCount:
    """Lesions of one image or volume, and which of them the map finds.

    Lesions are connected components of the mask; pixels that share a face, an edge or a corner
    are connected (8 neighbours in 2D, 26 in 3D). So are flagged components.

    Args:
        heatmap: finite, larger is more abnormal, (H, W) or (D, H, W).
        mask: lesion where non-zero, shaped like ``heatmap``.
        threshold: pixels from here on are flagged.
        min_share: a lesion counts as found when at least this share of its pixels, in [0, 1], and
            at least one of them, is flagged.
    """
    lesion, flagged = _check(heatmap, mask), _flag(heatmap, threshold)
    of_lesion, lesions = _components(lesion)
    hits = np.bincount(of_lesion[flagged], minlength=lesions + 1)[1:]  # flagged pixels of each
    sizes = np.bincount(of_lesion.ravel(), minlength=lesions + 1)[1:]
    found = (hits > 0) & (hits / sizes >= min_share)
    of_alarm, alarms = _components(flagged)
    touching = np.unique(of_alarm[lesion & flagged])
    return LesionCount(lesions, int(found.sum()), alarms - len(touching), volumes=1)


def pointing(heatmap: np.ndarray, mask: np.ndarray) -> float:
    """Whether a map's largest value lies in the lesion: 1 or 0, of several largest their share.

    Args:
        heatmap: finite.
        mask: lesion where non-zero, shaped like ``heatmap``.
    """
    lesion = _check(heatmap, mask)
    return float(lesion[heatmap == heatmap.max()].mean())


@dataclass(frozen=True, eq=False)
class PixelHistogram:
    """How often map values occur inside and outside lesions.

    It stands for any number of volumes in the memory of one histogram::

        histogram = PixelHistogram()
        for heatmap, mask in volumes:
            histogram = histogram.add(heatmap, mask)

    Dice at the edge of a bin is exact. The order of values within a bin is lost;
    ``average_precision`` says how much that matters.
    """

    inside: ValueHistogram = field(default_factory=ValueHistogram)
    """Of lesion pixels."""
    outside: ValueHistogram = field(default_factory=ValueHistogram)
    """Of all others."""

    def add(self, maps: np.ndarray, masks: np.ndarray) -> PixelHistogram:
        """With more pixels.

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
        """Share of pixels that are lesion: the average precision of a blind map."""
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
        """Lesion pixels and others from an edge of a bin on, such as ``best_dice_threshold``'s."""
        first = int(bins_of(threshold))
        return int(self.inside.counts[first:].sum()), int(self.outside.counts[first:].sum())

    def _check_lesion(self) -> None:
        if not self.inside.total:
            raise UserError(
                "localisation needs lesions; the masks have no pixel of any. Judge volumes with a "
                "segmentation"
            )


def _flag(maps: np.ndarray, threshold: float) -> np.ndarray:
    # As float64: a float32 map would have the threshold rounded, and a pixel at it lost.
    flagged: np.ndarray = maps.astype(np.float64, copy=False) >= threshold
    return flagged


def _components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Connected components, 1 to their number and 0 elsewhere, and their number."""
    labels, number = ndimage.label(mask, ndimage.generate_binary_structure(mask.ndim, mask.ndim))
    return labels, int(number)


def _check(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Where the lesion is, once maps and masks fit and have a ranking."""
    assert maps.shape == masks.shape
    bad = int((~np.isfinite(maps)).sum())
    if bad:
        raise UserError(
            f"{bad} of {maps.size} values of a heat map are not finite; did the run diverge?"
        )
    lesion: np.ndarray = masks != 0
    return lesion

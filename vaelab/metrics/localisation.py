"""Localisation: does a heat map light up where the lesion is?

A pixel (or voxel) is flagged when its value is at least the threshold. Choose the threshold on
validation volumes and apply it to test ones: the best Dice *on the test split* ("⌈Dice⌉", Baur et
al. 2021) is a bound that no user reaches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from sklearn.metrics import average_precision_score

from vaelab.errors import UserError


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


def pixel_average_precision(maps: np.ndarray, masks: np.ndarray) -> float:
    """Average precision over all pixels at once; the share of lesion pixels is blind.

    Unlike AUROC it is not flattered by the many easy pixels of healthy tissue (Davis & Goadrich
    2006). For more pixels than can be sorted in memory use ``PixelHistogram``.

    Args:
        maps: finite, larger is more abnormal, any shape.
        masks: lesion where non-zero, shaped like ``maps``.

    Raises:
        UserError: when no pixel is lesion, or a value is not finite.
    """
    lesion = _check(maps, masks)
    _check_lesion(int(lesion.sum()))
    return float(average_precision_score(lesion.ravel(), maps.ravel()))


def best_dice_threshold(maps: np.ndarray, masks: np.ndarray) -> BestDice:
    """The threshold with the largest Dice over all pixels at once; of equals, the largest.

    Dice = 2 TP / (2 TP + FP + FN). Every value that occurs is tried.

    Args, Raises:
        as ``pixel_average_precision``; hand in *validation* volumes.
    """
    lesion = _check(maps, masks)
    total = int(lesion.sum())
    _check_lesion(total)
    order = np.argsort(-maps, axis=None, kind="stable")
    ranked = maps.ravel()[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of each run of ties
    true = np.cumsum(lesion.ravel()[order])[last]
    dice = 2 * true / (total + last + 1)
    best = int(dice.argmax())
    return BestDice(float(ranked[last[best]]), float(dice[best]))


def dice_at(maps: np.ndarray, masks: np.ndarray, threshold: float) -> float:
    """Dice at a threshold chosen elsewhere, in [0, 1]; 1 where nothing is lesion or flagged.

    Over all pixels at once: for a mean over volumes call it for each.

    Args:
        maps, masks: as in ``pixel_average_precision``; masks may be empty.
        threshold: pixels from here on are flagged.
    """
    lesion = _check(maps, masks)
    flagged = _flag(maps, threshold)
    size = int(lesion.sum()) + int(flagged.sum())
    return 2 * int((lesion & flagged).sum()) / size if size else 1.0


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


@dataclass(frozen=True, eq=False)
class PixelHistogram:
    """How often map values fall between ``edges``, inside and outside lesions.

    It stands for any number of volumes in the memory of one histogram::

        histogram = PixelHistogram.empty(np.linspace(0, 4 * scale_of_healthy_tissue, 4096))
        for heatmap, mask in volumes:
            histogram = histogram.add(heatmap, mask)

    Dice at an edge is exact. The order of values within a bin is lost; ``average_precision`` says
    how much that matters.
    """

    edges: np.ndarray
    """Ascending, (K,): a value falls into bin k when it is at least k of the edges; the first bin
    reaches down and the last one up without end."""
    inside: np.ndarray
    """Lesion pixels of each bin, (K + 1,)."""
    outside: np.ndarray
    """Other pixels of each bin, (K + 1,)."""

    @classmethod
    def empty(cls, edges: np.ndarray) -> PixelHistogram:
        """No pixel yet."""
        edges = np.asarray(edges, dtype=np.float64)
        assert edges.ndim == 1
        assert len(edges) > 0
        assert (np.diff(edges) > 0).all()
        none = np.zeros(len(edges) + 1, dtype=np.int64)
        return cls(edges, none, none)

    def add(self, maps: np.ndarray, masks: np.ndarray) -> PixelHistogram:
        """With more pixels; ``masks`` may be empty.

        Args, Raises:
            as ``dice_at``.
        """
        lesion = _check(maps, masks)
        bins = np.searchsorted(self.edges, maps, side="right")
        inside, outside = (
            np.bincount(bins[m], minlength=len(self.inside)) for m in (lesion, ~lesion)
        )
        return PixelHistogram(self.edges, self.inside + inside, self.outside + outside)

    def average_precision(self) -> Bracketed:
        """Average precision as if the values of a bin were equal, and bounds of the exact one.

        With T lesion and F other pixels in the bins above, a bin of i and o adds to P · AP, P
        being all lesion pixels, i times the precision (T + i)/(T + i + F + o). Whatever the order
        and the ties within it, the precision at each of its lesion pixels is at least
        (T + 1)/(T + 1 + F + o) and at most (T + i)/(T + i + F). More bins where lesion values lie
        bring the bounds together.

        Raises:
            UserError: when no pixel is lesion.
        """
        inside, outside = self.inside[::-1], self.outside[::-1]  # the most abnormal bin first
        true, false = np.cumsum(inside), np.cumsum(outside)
        _check_lesion(int(true[-1]))
        value, low, high = (
            # A bin without lesion pixels may be 0/0, and adds nothing.
            float((inside * of_bin / np.maximum(of_bin + others, 1)).sum() / true[-1])
            for of_bin, others in (
                (true, false), (true - inside + 1, false), (true, false - outside),
            )
        )  # fmt: skip
        return Bracketed(value, low, high)

    def best_dice_threshold(self) -> BestDice:
        """The edge with the largest Dice over all pixels; of equals, the largest.

        The Dice is exactly that of ``dice_at``; a threshold between two edges may be better.

        Raises:
            UserError: when no pixel is lesion.
        """
        total = int(self.inside.sum())
        _check_lesion(total)
        true, false = (np.cumsum(bins[:0:-1]) for bins in (self.inside, self.outside))
        dice = 2 * true / (total + true + false)  # at the edges, the last one first
        best = int(dice.argmax())
        return BestDice(float(self.edges[::-1][best]), float(dice[best]))


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


def _check_lesion(pixels: int) -> None:
    if not pixels:
        raise UserError(
            "localisation needs lesions; the masks have no pixel of any. Judge volumes with a "
            "segmentation"
        )

"""How well one kind of map shows lesions, image by image: the run's own and any other's alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from vaelab.metrics.bootstrap import Estimate, interval, over_scans, patient_weights
from vaelab.metrics.localisation import BestDice, PixelHistogram, pointing


@dataclass(frozen=True)
class MapFigures:
    """What a kind of map is worth, on the judged images."""

    average_precision: float
    """Over all pixels of all images at once."""
    average_precision_per_image: Estimate
    """Mean over images with a lesion, with its 95 % interval by patient."""
    pointing_game: Estimate
    """Share of these images whose largest value lies in a lesion (Zhang et al. 2016,
    arXiv:1608.00507, without tolerance), likewise."""
    dice: float
    """Over all pixels at once, at the threshold with the best Dice on other images."""


class MapTally:
    """Sums over images: first those that a threshold is chosen on, then those that are judged."""

    def __init__(self) -> None:
        self.chosen = PixelHistogram()
        self.judged = PixelHistogram()
        self._best: BestDice | None = None
        self._precision: list[float] = []
        self._hits: list[float] = []
        self._patients: list[str] = []

    @property
    def best(self) -> BestDice | None:
        """Chosen now, from what was added; None without a lesion."""
        if self._best is None and self.chosen.inside.total:
            self._best = self.chosen.best_dice_threshold()
        return self._best

    @property
    def lesion_images(self) -> int:
        """Judged images with a lesion."""
        return len(self._hits)

    def choose(self, maps: np.ndarray, masks: np.ndarray) -> None:
        """Take note of images that the threshold is chosen on, both (B, ...)."""
        assert self._best is None, "chosen already"
        self.chosen = self.chosen.add(maps, masks)

    def judge(self, maps: np.ndarray, masks: np.ndarray, patients: Sequence[str]) -> None:
        """Take note of images to judge, both (B, ...), and their patients."""
        for heatmap, mask, patient in zip(maps, masks, patients, strict=True):
            of_image = PixelHistogram().add(heatmap, mask)
            self.judged += of_image
            if mask.any():
                self._precision.append(of_image.average_precision().value)
                self._hits.append(pointing(heatmap, mask))
                self._patients.append(patient)

    def figures(self, num_resamples: int, seed: int) -> MapFigures:
        """What comes of it; both parts show a lesion.

        Args:
            num_resamples: of the bootstrap over patients.
            seed: of the same.
        """
        best = self.best
        assert best is not None
        true, false = self.judged.flagged(best.threshold)
        weights = patient_weights(self._patients, num_resamples, seed)

        def mean(values: list[float]) -> Estimate:
            return interval(over_scans(np.array(values), weights) / weights.sum(1))

        return MapFigures(
            average_precision=self.judged.average_precision().value,
            average_precision_per_image=mean(self._precision),
            pointing_game=mean(self._hits),
            # 2 TP / (2 TP + FP + FN); exact at an edge
            dice=2 * true / (self.judged.inside.total + true + false),
        )


def mask_of(batch: Mapping[str, Any]) -> Tensor | None:
    """Where lesions are, non-zero, of a sample or a batch; None where that is not known."""
    mask: Tensor | None = batch.get("mask", batch.get("seg"))
    return mask


def masks_of(batch: Mapping[str, Any]) -> np.ndarray:
    """Masks of a batch that has them, (B, ...)."""
    mask = mask_of(batch)
    assert mask is not None
    masks: np.ndarray = mask[:, 0].numpy()
    return masks

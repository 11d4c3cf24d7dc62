"""Localisation for ``task=evaluate``: do the heat maps light up where the lesions are?

A threshold is chosen on images other than those it is judged on, which come first: every map is
seen once, and a cohort of any size takes the memory of one batch and two histograms.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from vaelab.anomaly.detector import Prediction
from vaelab.data.index import Record, split_by_patient
from vaelab.metrics.localisation import BestDice, LesionCount, PixelHistogram, count_lesions

log = logging.getLogger(__name__)

MAX_RECORDS = 50
"""Volumes to choose a threshold on."""


@dataclass(frozen=True)
class Localisation:
    """How well heat maps show where lesions are, on the judged images."""

    unit: str
    """"pixel" or "voxel"."""
    threshold_from: str
    """In words, what the threshold was chosen on."""
    threshold_images: int
    judged_on: str
    judged_images: int
    map: str
    """In words, what the maps show."""
    average_precision: float
    """Over all pixels at once."""
    average_precision_bracket: tuple[float, float]
    """The exact number is no smaller and no larger."""
    lesion_share: float
    """Share of pixels that are lesion: the average precision of a blind map."""
    dice: float
    """At ``threshold``, over all pixels at once."""
    dice_where_chosen: float
    """Too good for a result."""
    threshold: float
    flagged_share: float
    """Share of pixels flagged at ``threshold``. Near 1 the map is of no use: flagging all has the
    best Dice of a blind map, and "finds" every lesion."""
    lesions: int
    lesions_found: int
    """With at least one pixel flagged."""
    detection_rate: float | None
    false_positives_per_image: float | None
    """Connected flagged components that touch no lesion."""


class ChosenThreshold:
    """The threshold with the best Dice on the images that it is chosen on.

    Args:
        part: these images.
    """

    def __init__(self, part: Part) -> None:
        self.part = part
        self._histogram = PixelHistogram()
        self._best: BestDice | None = None

    def add(self, batch: Mapping[str, Any], prediction: Prediction) -> None:
        """Take note of a batch."""
        assert self._best is None, "chosen already"
        self._histogram = self._histogram.add(*_pixels(batch, prediction))

    @property
    def best(self) -> BestDice | None:
        """Chosen now, from what was added; None without a lesion."""
        if self._best is None and self._histogram.inside.total:
            self._best = self._histogram.best_dice_threshold()
        return self._best


class LocalisedLesions:
    """Judges maps with a threshold that was chosen on others.

    Args:
        part: the images to judge.
        chosen: has seen all of its images before the first is judged.
    """

    def __init__(self, part: Part, chosen: ChosenThreshold) -> None:
        self.part = part
        self.chosen = chosen
        self._histogram = PixelHistogram()
        self._lesions = LesionCount()
        self._dimensions = 0

    def add(self, batch: Mapping[str, Any], prediction: Prediction) -> None:
        """Take note of a batch."""
        best = self.chosen.best
        if best is None:
            return
        maps, masks = _pixels(batch, prediction)
        self._dimensions = maps.ndim - 1
        self._histogram = self._histogram.add(maps, masks)
        for heatmap, mask in zip(maps, masks, strict=True):
            self._lesions += count_lesions(heatmap, mask, best.threshold)

    def result(self, map_name: str) -> Localisation | None:
        """What is to be said; None, with a warning, where one of the two parts shows no lesion."""
        best, choosing = self.chosen.best, self.chosen.part
        if best is None or not self._histogram.inside.total:
            log.warning(
                "no localisation: no lesion in the %s or in the %s", choosing.name, self.part.name
            )
            return None
        true, false = self._histogram.flagged(best.threshold)
        lesion = self._histogram.inside.total
        pixels = lesion + self._histogram.outside.total
        precision = self._histogram.average_precision()
        return Localisation(
            unit="pixel" if self._dimensions == 2 else "voxel",
            threshold_from=choosing.name,
            threshold_images=len(choosing.places),
            judged_on=self.part.name,
            judged_images=len(self.part.places),
            map=map_name,
            average_precision=precision.value,
            average_precision_bracket=(precision.low, precision.high),
            lesion_share=self._histogram.lesion_share,
            dice=2 * true / (lesion + true + false),  # 2 TP / (2 TP + FP + FN); exact at an edge
            dice_where_chosen=best.dice,
            threshold=best.threshold,
            flagged_share=(true + false) / pixels,
            lesions=self._lesions.lesions,
            lesions_found=self._lesions.found,
            detection_rate=self._lesions.sensitivity,
            false_positives_per_image=self._lesions.false_positives_per_volume,
        )


class Part(NamedTuple):
    """Some images of a split."""

    split: str
    places: list[int]
    """In the dataset of the split."""
    name: str
    """In words, for the reader of ``metrics.json``."""


def choose_parts(splits: Mapping[str, Sequence[Record]], seed: int) -> tuple[Part, Part]:
    """What a threshold is chosen on, and what it is judged on; no patient is in both.

    Where only the test images have lesions, half of their patients each, sick and healthy ones
    shared out alike. Else up to ``MAX_RECORDS`` training records, drawn by seed, and those that
    reconstruction is judged on. The network knows the training records: their residuals, and
    with them the threshold, may be a little low.

    Args:
        splits: of the data module.
        seed: of the draw.
    """
    if "test_full" not in splits:
        count = len(splits["train"])
        places = sorted(random.Random(seed).sample(range(count), min(count, MAX_RECORDS)))
        judged = "test" if "test" in splits else "val"
        everything = list(range(len(splits[judged])))
        return Part("train", places, "train split"), Part(judged, everything, f"{judged} split")
    records = splits["test_full"]
    sick = {record["patient"] for record in records if record["label"] == 1}
    chosen_on: set[str] = set()
    for group in (
        [record for record in records if record["patient"] in sick],
        [record for record in records if record["patient"] not in sick],
    ):
        if len({record["patient"] for record in group}) > 1:
            half = split_by_patient(group, 0.5, seed)[0]
            chosen_on |= {record["patient"] for record in half}
    chosen, judged_places = (
        [i for i, record in enumerate(records) if (record["patient"] in chosen_on) is wanted]
        for wanted in (True, False)
    )
    return (
        Part("test_full", chosen, "half of the test patients"),
        Part("test_full", judged_places, "the other half of the test patients"),
    )


def mask_of(batch: Mapping[str, Any]) -> Tensor | None:
    """Where lesions are, non-zero, of a sample or a batch; None where that is not known."""
    mask: Tensor | None = batch.get("mask", batch.get("seg"))
    return mask


def _pixels(batch: Mapping[str, Any], prediction: Prediction) -> tuple[np.ndarray, np.ndarray]:
    """Maps and masks of a batch, both (B, ...)."""
    mask = mask_of(batch)
    assert mask is not None
    return prediction.heatmap.numpy(), mask[:, 0].numpy()

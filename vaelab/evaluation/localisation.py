"""Localisation for ``task=evaluate``: do the heat maps light up where the lesions are?

A threshold is chosen on images other than those it is judged on, which come first: every map is
seen once, and a cohort of any size takes the memory of one batch and two histograms.
"""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from vaelab.anomaly.detector import Prediction
from vaelab.data.index import Record, split_by_patient
from vaelab.evaluation.baselines import Baselines
from vaelab.evaluation.map_tally import MapFigures, MapTally, masks_of
from vaelab.metrics.bootstrap import Estimate
from vaelab.metrics.localisation import LesionCount, count_lesions

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
    lesion_images: int
    """Judged images with a lesion, to which the next two are limited."""
    average_precision_per_image: Estimate
    """Mean, with its 95 % interval by patient."""
    pointing_game: Estimate
    """Share whose largest value lies in a lesion, likewise."""
    baselines: dict[str, MapFigures]
    """Maps that know less → the same figures on the same images; see
    ``vaelab.evaluation.baselines``."""

    @property
    def own(self) -> MapFigures:
        """Of the run's own map what there is of each baseline."""
        return MapFigures(
            self.average_precision, self.average_precision_per_image, self.pointing_game, self.dice
        )

    def verdict(self) -> str:
        """Which baselines do better by which figure, in words."""
        wins: dict[str, list[str]] = defaultdict(list)
        for name, value in MEASURES.items():
            best = max(self.baselines, key=lambda other: value(self.baselines[other]))
            if value(self.baselines[best]) >= value(self.own):
                figures = f"{value(self.baselines[best]):.2f} against {value(self.own):.2f}"
                wins[best].append(f"{name} ({figures})")
        if not wins:
            return "The run's own map does better than every baseline, by every figure."
        said = "; ".join(f"{best} by {', '.join(figures)}" for best, figures in wins.items())
        return f"At least as good as the run's own map: {said}."


MEASURES: Mapping[str, Callable[[MapFigures], float]] = {
    "average precision over all images": lambda of: of.average_precision,
    "average precision per image": lambda of: of.average_precision_per_image.value,
    "pointing game": lambda of: of.pointing_game.value,
    "Dice": lambda of: of.dice,
}
"""Name → what a kind of map is compared by; larger is better."""


class ChosenThreshold:
    """The threshold with the best Dice on the images that it is chosen on.

    Args:
        part: these images.
        baselines: other maps, for which one is chosen too.
    """

    def __init__(self, part: Part, baselines: Baselines) -> None:
        self.part = part
        self.tally = MapTally()
        self.baselines = baselines

    def add(self, batch: Mapping[str, Any], prediction: Prediction) -> None:
        """Take note of a batch."""
        self.tally.choose(prediction.heatmap.numpy(), masks_of(batch))
        self.baselines.choose(batch, prediction)


class LocalisedLesions:
    """Judges maps with a threshold that was chosen on others.

    Args:
        part: the images to judge.
        chosen: has seen all of its images before the first is judged.
        patients: id → patient, of these images.
    """

    def __init__(self, part: Part, chosen: ChosenThreshold, patients: Mapping[str, str]) -> None:
        self.part = part
        self.chosen = chosen
        self._patients = patients
        self._lesions = LesionCount()
        self._dimensions = 0

    def add(self, batch: Mapping[str, Any], prediction: Prediction) -> None:
        """Take note of a batch."""
        best = self.chosen.tally.best
        if best is None:
            return
        maps, masks = prediction.heatmap.numpy(), masks_of(batch)
        self._dimensions = maps.ndim - 1
        self.chosen.tally.judge(maps, masks, [self._patients[name] for name in batch["id"]])
        self.chosen.baselines.judge(batch, prediction)
        for heatmap, mask in zip(maps, masks, strict=True):
            self._lesions += count_lesions(heatmap, mask, best.threshold)

    def result(self, map_name: str, num_resamples: int, seed: int) -> Localisation | None:
        """What is to be said; None, with a warning, where one of the two parts shows no lesion.

        Args:
            map_name: in words, what the maps show.
            num_resamples: of the bootstrap over patients behind intervals.
            seed: of the same.
        """
        tally, choosing = self.chosen.tally, self.chosen.part
        best, histogram = tally.best, tally.judged
        if best is None or not histogram.inside.total:
            log.warning(
                "no localisation: no lesion in the %s or in the %s", choosing.name, self.part.name
            )
            return None
        true, false = histogram.flagged(best.threshold)
        pixels = histogram.inside.total + histogram.outside.total
        precision = histogram.average_precision()
        own = tally.figures(num_resamples, seed)
        return Localisation(
            unit="pixel" if self._dimensions == 2 else "voxel",
            threshold_from=choosing.name,
            threshold_images=len(choosing.places),
            judged_on=self.part.name,
            judged_images=len(self.part.places),
            map=map_name,
            average_precision=precision.value,
            average_precision_bracket=(precision.low, precision.high),
            lesion_share=histogram.lesion_share,
            dice=own.dice,
            dice_where_chosen=best.dice,
            threshold=best.threshold,
            flagged_share=(true + false) / pixels,
            lesions=self._lesions.lesions,
            lesions_found=self._lesions.found,
            detection_rate=self._lesions.sensitivity,
            false_positives_per_image=self._lesions.false_positives_per_volume,
            lesion_images=tally.lesion_images,
            average_precision_per_image=own.average_precision_per_image,
            pointing_game=own.pointing_game,
            baselines=self.chosen.baselines.result(num_resamples, seed),
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

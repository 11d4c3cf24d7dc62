"""Localisation for ``task=evaluate``: do the heat maps light up where the lesions are?

A threshold is chosen on images other than those it is judged on; both parts stream, so that a
cohort of any size takes the memory of one batch and a histogram.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from vaelab.anomaly.detector import AnomalyDetector
from vaelab.assembly import Run
from vaelab.data.index import Record, split_by_patient
from vaelab.evaluation.judging import examine
from vaelab.metrics.localisation import (
    BestDice,
    Bracketed,
    LesionCount,
    PixelHistogram,
    count_lesions,
)

log = logging.getLogger(__name__)

BINS = 4096  # of the histogram, from 0 to the largest value seen where the threshold is chosen
MAX_SUBJECTS = (
    50  # volumes to choose a threshold on, passed over twice: time, not memory, is the limit
)

Pixels = tuple[np.ndarray, np.ndarray]
"""Heat maps of a batch, (B, ...), and its masks, lesion where non-zero, of the same shape."""


@dataclass(frozen=True)
class Localisation:
    """How well heat maps show where lesions are; all but ``chosen`` on the judged images."""

    average_precision: Bracketed
    """Over all pixels at once."""
    lesion_share: float
    """Share of pixels that are lesion: the average precision of a blind map."""
    dice: float
    """At ``chosen.threshold``, over all pixels at once."""
    chosen: BestDice
    """The threshold, and its Dice on the images that it was chosen on."""
    flagged_share: float
    """Share of pixels flagged at ``chosen.threshold``. Near 1 the map is of no use: flagging all
    has the best Dice of a blind map, and "finds" every lesion."""
    lesions: LesionCount
    """At ``chosen.threshold``; a lesion is found when one of its pixels is flagged."""

    def to_json(self) -> dict[str, Any]:
        """As ``metrics.json`` has it."""
        return {
            "average_precision": self.average_precision.value,
            "average_precision_bracket": [self.average_precision.low, self.average_precision.high],
            "lesion_share": self.lesion_share,
            "dice": self.dice,
            "dice_where_chosen": self.chosen.dice,
            "threshold": self.chosen.threshold,
            "flagged_share": self.flagged_share,
            "lesions": self.lesions.lesions,
            "lesions_found": self.lesions.found,
            "detection_rate": self.lesions.sensitivity,
            "false_positives_per_image": self.lesions.false_positives_per_volume,
        }


def judge_maps(
    choosing: Callable[[], Iterable[Pixels]], judged: Iterable[Pixels]
) -> Localisation | None:
    """Choose a threshold by Dice on one set of images and judge another set with it.

    None when one of the two has no lesion pixel.

    Args:
        choosing: gives the images to choose on; called twice, for their range and for the Dice.
        judged: the images to judge, passed over once.

    Raises:
        UserError: when a value is not finite.
    """
    # What is not finite is left out here and refused, with a reason, by the histogram.
    tops = (float(maps[np.isfinite(maps)].max(initial=0)) for maps, _ in choosing())
    top = max(tops, default=0.0)
    empty = PixelHistogram.empty(np.linspace(0, top or 1.0, BINS))
    histogram = empty
    for maps, masks in choosing():
        histogram = histogram.add(maps, masks)
    if not histogram.inside.any():
        return None
    chosen = histogram.best_dice_threshold()
    histogram, lesions = empty, LesionCount()
    for maps, masks in judged:
        histogram = histogram.add(maps, masks)
        for heatmap, mask in zip(maps, masks, strict=True):
            lesions += count_lesions(heatmap, mask, chosen.threshold)
    lesion = int(histogram.inside.sum())
    pixels = lesion + int(histogram.outside.sum())
    if not lesion:
        return None
    # The threshold is an edge: all is flagged that lies in the bins from here on.
    first = int(np.searchsorted(histogram.edges, chosen.threshold, side="right"))
    true, false = (int(bins[first:].sum()) for bins in (histogram.inside, histogram.outside))
    return Localisation(
        average_precision=histogram.average_precision(),
        lesion_share=lesion / pixels,
        dice=2 * true / (lesion + true + false),  # 2 TP / (2 TP + FP + FN); exact at an edge
        chosen=chosen,
        flagged_share=(true + false) / pixels,
        lesions=lesions,
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
    shared out alike. Else up to ``MAX_SUBJECTS`` training subjects, drawn by seed, and those that
    reconstruction is judged on. The network knows the training subjects: their residuals, and
    with them the threshold, may be a little low.

    Args:
        splits: of the data module.
        seed: of the draw.
    """
    if "test_full" not in splits:
        count = len(splits["train"])
        places = sorted(random.Random(seed).sample(range(count), min(count, MAX_SUBJECTS)))
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


def localise(run: Run, detector: AnomalyDetector, seed: int) -> dict[str, Any] | None:
    """The section ``localisation`` of ``metrics.json``; None for data without masks.

    None too, with a warning, where one of the two parts shows no lesion.

    Args:
        run: with its data set up.
        detector: of the run.
        seed: of ``choose_parts``.
    """
    choosing, judged = choose_parts(run.data.splits, seed)
    sample: Mapping[str, Any] = run.data.dataset(judged.split)[0]
    if _mask(sample) is None:
        return None
    found = judge_maps(lambda: _pixels(run, detector, choosing), _pixels(run, detector, judged))
    if found is None:
        log.warning("no localisation: no lesion in the %s or in the %s", choosing.name, judged.name)
        return None
    return {
        "unit": "pixel" if sample["image"].dim() == 3 else "voxel",
        "threshold_from": choosing.name,
        "threshold_images": len(choosing.places),
        "judged_on": judged.name,
        "judged_images": len(judged.places),
    } | found.to_json()


def _pixels(run: Run, detector: AnomalyDetector, part: Part) -> Iterator[Pixels]:
    data = run.data
    loader: DataLoader[Any] = DataLoader(
        Subset(data.dataset(part.split), part.places),
        batch_size=data.batch_size,
        num_workers=data.num_workers,
    )
    for batch, finding in examine(detector, loader):
        mask = _mask(batch)
        assert mask is not None
        yield finding.heatmap.numpy(), mask[:, 0].numpy()


def _mask(batch: Mapping[str, Any]) -> Tensor | None:
    """Where lesions are, non-zero, of an X-ray or a volume; None where that is not known."""
    mask: Tensor | None = batch.get("mask", batch.get("seg"))
    return mask

"""Maps that know less than the run's own, and are judged like it.

A map that loses to one of them has found nothing that it was needed for: to a blind one, to a
weight of the centre, to the intensity itself (Meissen et al. 2022, arXiv:2109.06023), to where
lesions are as a rule, or to the run's own map of another patient, which has all of the map's prior
and none of the image's evidence.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaelab.anomaly.detector import Prediction
from vaelab.evaluation.map_tally import MapFigures, MapTally, masks_of
from vaelab.metrics.image import foreground

WIDTH = 0.5
"""Of the weight of the centre exp(-(radius² / width)²), the border lying at radius 1."""
OUTSIDE = -1e30
"""Of the brain, where the intensity says nothing."""

BLIND = "blind"
CENTRE = "fixed centre weight"
AVERAGE_MASK = "average mask of other patients"
OTHER_PATIENT = "the run's own map of another patient"

Maps = dict[str, np.ndarray]
"""Name → (B, ...)."""


class Baselines:
    """Judges such maps on the images that the run's own is judged on, in the same order.

    Args:
        patients: id → patient, of all images.
        channel_names: of an image, in order.
    """

    def __init__(self, patients: Mapping[str, str], channel_names: Sequence[str]) -> None:
        self._patients = patients
        self._channel_names = list(channel_names)
        self._tallies: dict[str, MapTally] = defaultdict(MapTally)
        self._lesions: NDArray[np.int64] | None = None  # of each pixel
        self._images = 0  # behind it
        self._last: tuple[str, np.ndarray] | None = None
        self._other: np.ndarray | None = None

    def choose(self, batch: Mapping[str, Any], prediction: Prediction) -> None:
        """Take note of images that thresholds are chosen on."""
        masks = masks_of(batch)
        lesions = (masks != 0).sum(0)
        self._lesions = lesions if self._lesions is None else self._lesions + lesions
        self._images += len(masks)
        for name, maps in self._maps(batch, prediction).items():
            self._tallies[name].choose(maps, masks)

    def judge(self, batch: Mapping[str, Any], prediction: Prediction) -> None:
        """Take note of images to judge."""
        assert self._lesions is not None
        average = self._lesions / self._images
        if AVERAGE_MASK not in self._tallies:
            tally = self._tallies[AVERAGE_MASK]
            tally.chosen = tally.chosen.add_counts(
                average, self._lesions, self._images - self._lesions
            )
        masks = masks_of(batch)
        patients = [self._patients[identifier] for identifier in batch["id"]]
        maps = self._maps(batch, prediction)
        maps[AVERAGE_MASK] = np.broadcast_to(average, masks.shape)
        for name, values in maps.items():
            self._tallies[name].judge(values, masks, patients)

    def result(self, num_resamples: int, seed: int) -> dict[str, MapFigures]:
        """Name → figures, with intervals by a bootstrap over patients."""
        return {
            name: tally.figures(num_resamples, seed)
            for name, tally in self._tallies.items()
            if tally.judged.inside.total and tally.best is not None
        }

    def _maps(self, batch: Mapping[str, Any], prediction: Prediction) -> Maps:
        x, own = batch["image"], prediction.heatmap.numpy()
        maps = {
            BLIND: np.zeros_like(own),
            CENTRE: np.broadcast_to(centre_weight(own.shape[1:]), own.shape),
        }
        brain = foreground(x)[:, 0].numpy() if x.dim() == 5 else True
        for place, name in enumerate(self._channel_names):
            values = x[:, place].numpy()
            maps[f"bright {name}"] = np.where(brain, values, OUTSIDE)
            maps[f"dark {name}"] = np.where(brain, -values, OUTSIDE)
        maps[OTHER_PATIENT] = np.stack(
            [
                self._of_another(self._patients[identifier], heatmap)
                for identifier, heatmap in zip(batch["id"], own, strict=True)
            ]
        )
        return maps

    def _of_another(self, patient: str, heatmap: np.ndarray) -> np.ndarray:
        """The last map of the patient before; of the first one there is none, but zeros."""
        if self._last is not None and self._last[0] != patient:
            self._other = self._last[1]
        self._last = (patient, heatmap)
        return np.zeros_like(heatmap) if self._other is None else self._other


def centre_weight(shape: Sequence[int]) -> NDArray[np.float32]:
    """exp(-(radius² / ``WIDTH``)²) of a map of this shape, in 2D or 3D."""
    radius = np.zeros(tuple(shape))
    for axis, side in enumerate(shape):
        place = (np.arange(side) + 0.5) / (side / 2) - 1  # centres of the cells, -1 to 1
        radius += (place**2).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return np.exp(-((radius / WIDTH) ** 2)).astype(np.float32)

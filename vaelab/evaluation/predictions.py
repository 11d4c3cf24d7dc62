"""What one pass through the network says of a split: numbers, and nothing the size of an image."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaelab.anomaly.detector import Prediction
from vaelab.atomic import replacing
from vaelab.data.index import Record
from vaelab.metrics.image import (
    SSIM_WINDOW,
    foreground,
    mean_of_windows,
    mean_squared_error,
    psnr,
    similarity_of_windows,
    squared_error_within,
)
from vaelab.objective.elbo import kl_per_dimension, squared_error


@dataclass(frozen=True, eq=False)
class Predictions:
    """The N records of a split, in its order."""

    ids: list[str]
    patients: list[str]
    labels: NDArray[np.int64] | None
    """0 normal and 1 sick, (N,); None where the data have no labels."""
    mu: Tensor
    """Posterior means, (N, z)."""
    logvar: Tensor
    """Log posterior variances, (N, z)."""
    squared_error: Tensor
    """Of the reconstruction, summed over channels and voxels, (N,)."""
    score: NDArray[np.float32]
    """Larger is more abnormal, (N,)."""
    channel_names: list[str]
    by_channel: Mapping[str, Tensor]
    """Metric → (N, C); see ``channel_metrics``."""
    tumour: ErrorWithin | None
    """None where no segmentation shows a tumour."""

    @property
    def kl(self) -> Tensor:
        """KL of each sample and unit in nats, (N, z)."""
        return kl_per_dimension(self.mu, self.logvar)

    def kl_of_units(self) -> NDArray[np.float64]:
        """Mean KL of each unit in nats, (z,)."""
        mean: NDArray[np.float64] = self.kl.double().mean(0).numpy()
        return mean

    def write_scores(self, path: Path) -> None:
        """Write ``scores.csv``: id, label where there is one, score."""
        labels = [""] * len(self.ids) if self.labels is None else self.labels.tolist()
        rows = zip(self.ids, labels, self.score.tolist(), strict=True)
        with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "label", "score"])
            writer.writerows(rows)


@dataclass(frozen=True)
class ErrorWithin:
    """Mean squared error over tumour voxels and over all others."""

    mse_tumour: float
    mse_rest: float
    ratio: float


class PredictionsOf:
    """Collects ``Predictions`` batch by batch, in any order.

    Args:
        records: of the split.
        channel_names: of the channels of an image, in order.
        device: where convolutions over images are computed.
    """

    def __init__(
        self, records: Sequence[Record], channel_names: Sequence[str], device: torch.device
    ) -> None:
        self._patients = {record["id"]: record["patient"] for record in records}
        self._channel_names = list(channel_names)
        # MPS has computed 3D convolutions wrongly in silence; see PyTorch issue 141780.
        self._device = device if device.type == "cuda" else torch.device("cpu")
        self._ids: list[str] = []
        self._labels: list[int] = []
        self._numbers: dict[str, list[Tensor]] = defaultdict(list)
        self._by_channel: dict[str, list[Tensor]] = defaultdict(list)
        self._tumour = torch.zeros(2, dtype=torch.float64)
        self._rest = torch.zeros(2, dtype=torch.float64)

    def add(self, batch: Mapping[str, Any], prediction: Prediction) -> None:
        """Take note of a batch."""
        x: Tensor = batch["image"]
        self._ids += list(batch["id"])
        for name, values in (
            ("mu", prediction.output.mu),
            ("logvar", prediction.output.logvar),
            ("squared_error", squared_error(x, prediction.x_hat)),
            ("score", prediction.score),
        ):
            self._numbers[name].append(values)
        images = x.to(self._device), prediction.x_hat.to(self._device)
        for name, values in channel_metrics(*images).items():
            self._by_channel[name].append(values.cpu())
        if "label" in batch:
            self._labels += batch["label"].tolist()
        if "seg" in batch:
            tumour = batch["seg"] > 0
            self._tumour += torch.stack(squared_error_within(x, prediction.x_hat, tumour))
            self._rest += torch.stack(squared_error_within(x, prediction.x_hat, ~tumour))

    def result(self) -> Predictions:
        """All of the split, once all of its batches were added."""
        place = {identifier: index for index, identifier in enumerate(self._ids)}
        order = [place[identifier] for identifier in self._patients]
        numbers = {name: torch.cat(parts)[order] for name, parts in self._numbers.items()}
        tumour = None
        if float(self._tumour[1]) > 0:
            inside, outside = (float(sum_ / n) for sum_, n in (self._tumour, self._rest))
            tumour = ErrorWithin(inside, outside, inside / outside)
        return Predictions(
            ids=list(self._patients),
            patients=list(self._patients.values()),
            labels=np.array(self._labels)[order] if self._labels else None,
            mu=numbers["mu"],
            logvar=numbers["logvar"],
            squared_error=numbers["squared_error"],
            score=numbers["score"].numpy(),
            channel_names=self._channel_names,
            by_channel={name: torch.cat(v)[order] for name, v in self._by_channel.items()},
            tumour=tumour,
        )


def channel_metrics(x: Tensor, x_hat: Tensor) -> dict[str, Tensor]:
    """Name → (B, C): over the whole image, and of volumes within the brain too.

    Images smaller than a window of SSIM have none.
    """
    brain = foreground(x) if x.dim() == 5 else None
    result = {"mse": mean_squared_error(x, x_hat), "psnr_db": psnr(x, x_hat)}
    similarity = similarity_of_windows(x, x_hat) if min(x.shape[2:]) >= SSIM_WINDOW else None
    if similarity is not None:
        result["ssim"] = mean_of_windows(similarity, None)
    if brain is not None:
        result["mse_brain"] = mean_squared_error(x, x_hat, brain)
        result["psnr_db_brain"] = psnr(x, x_hat, brain)
        if similarity is not None:
            result["ssim_brain"] = mean_of_windows(similarity, brain)
    return result

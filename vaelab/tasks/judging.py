"""What judging tasks share: the trained detector and the colour scale of healthy tissue."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vaelab.anomaly.calibration import ConformalCalibration
from vaelab.anomaly.detector import AnomalyDetector, Finding
from vaelab.anomaly.maps import heat_scale
from vaelab.anomaly.scores import FittedScore
from vaelab.data.module import SplitDataModule
from vaelab.errors import UserError
from vaelab.models.vae import VAEOutput
from vaelab.tasks.experiment import Experiment
from vaelab.training.checkpoint import load_weights

log = logging.getLogger(__name__)

CALIBRATION = "calibration.json"
"""In a run folder: the scores of held-out normal images, and which score gave them."""

HEAT_QUANTILE = 0.995
# Every volume gives as many residuals to the scale as this at most: a cohort at 128³ has billions.
RESIDUALS_PER_BATCH = 100_000


def load_detector(experiment: Experiment) -> AnomalyDetector:
    """The run's best network with the chosen score, on the chosen hardware.

    Raises:
        UserError: when the run has no trained network.
    """
    if not experiment.weights.is_file():
        raise UserError(
            f"{experiment.weights}: no such file; name a trained run with run_dir=outputs/<run>"
        )
    model = load_weights(experiment.model, experiment.weights)
    detector = AnomalyDetector(
        model, experiment.score, experiment.hardware.device, experiment.map_sigma
    )
    if isinstance(experiment.score, FittedScore):
        experiment.data.setup("test")
        train, held_out = (
            partial(_normals, detector, experiment.data, split) for split in ("train", "val")
        )
        experiment.score.fit(train, held_out)
    return detector


def judged_split(data: SplitDataModule) -> str:
    """The split to judge a run by: all test images, else the test split, else validation."""
    return next(name for name in ("test_full", "test", "val") if name in data.splits)


def calibrate(experiment: Experiment, detector: AnomalyDetector) -> ConformalCalibration:
    """Scores of held-out normal images, one of each patient, for conformal p-values.

    From the split ``calibration`` where there is one; else from ``val``, which has chosen the
    epoch, so that false alarms may be a little more than promised.
    """
    split = "calibration" if "calibration" in experiment.data.splits else "val"
    patients = {record["id"]: record["patient"] for record in experiment.data.splits[split]}
    first: dict[str, float] = {}
    for batch, finding in examine(detector, experiment.data.loader(split)):
        for identifier, score in zip(batch["id"], finding.score.tolist(), strict=True):
            first.setdefault(patients[identifier], score)
    return ConformalCalibration(np.array(list(first.values())))


def load_calibration(experiment: Experiment) -> ConformalCalibration | None:
    """The run's own, if it is of the score in use; else None, with a sentence in the log.

    Raises:
        UserError: when the file is damaged.
    """
    path = experiment.run_dir / CALIBRATION
    if not path.is_file():
        log.info(
            "%s does not exist: there are no p-values and flags; task=evaluate writes it where "
            "there are normal images",
            path,
        )
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not a JSON file ({error}); calibrate the run anew") from error
    score = type(experiment.score).__name__
    calibrated = content.get("score", score) if isinstance(content, dict) else score
    if calibrated != score:
        log.warning(
            "%s is of score %s, not %s: there are no p-values and flags; "
            "calibrate anew with task=evaluate and the score of now",
            *(path, calibrated, score),
        )
        return None
    return ConformalCalibration.from_json(content, path)


def _normals(
    detector: AnomalyDetector, data: SplitDataModule, split: str
) -> Iterator[tuple[Tensor, VAEOutput]]:
    """Images of a split with the VAE's output; nothing else of a batch, so no label, goes on."""
    for batch in data.loader(split):
        yield batch["image"], detector.reconstruct(batch["image"])


def examine(
    detector: AnomalyDetector, loader: DataLoader[Any]
) -> Iterator[tuple[dict[str, Any], Finding]]:
    """Each batch with what the detector says of it."""
    for batch in loader:
        yield batch, detector(batch["image"])


def healthy_scale(detector: AnomalyDetector, loader: DataLoader[Any]) -> tuple[float, str]:
    """Top of the heat maps' scale, and in words where it comes from.

    Images without lesions are used whole; of a volume with a segmentation only the voxels
    outside it.
    """
    residuals: list[Tensor] = []
    segmented = False
    for batch, finding in examine(detector, loader):
        heat = finding.heatmap
        if "seg" in batch:
            segmented = True
            heat = heat[batch["seg"][:, 0] == 0]
        flat = heat.flatten()
        residuals.append(flat[:: max(1, len(flat) // RESIDUALS_PER_BATCH)])
    where = "tissue outside tumours" if segmented else "held-out images without a finding"
    scale = heat_scale(torch.cat(residuals), HEAT_QUANTILE)
    return scale, f"{100 * HEAT_QUANTILE:g}th percentile of {where}"

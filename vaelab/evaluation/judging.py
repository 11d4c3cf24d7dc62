"""What judging tasks share: the trained detector and the colour scale of healthy tissue."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vaelab.anomaly.calibration import ConformalCalibration
from vaelab.anomaly.detector import AnomalyDetector, Finding
from vaelab.anomaly.maps import heat_scale
from vaelab.anomaly.scores import FittedScore, Score
from vaelab.assembly import Run
from vaelab.atomic import write_json
from vaelab.data.module import SplitDataModule
from vaelab.errors import UserError
from vaelab.models.vae import VAE, VAEOutput
from vaelab.training.checkpoint import load_weights

log = logging.getLogger(__name__)

HEAT_QUANTILE = 0.995
# Every volume gives as many residuals to the scale as this at most: a cohort at 128³ has billions.
RESIDUALS_PER_BATCH = 100_000


def load_model(run: Run) -> VAE:
    """The run's best network in evaluation mode, on the chosen hardware.

    Raises:
        UserError: when the run has no trained network.
    """
    if not run.weights.is_file():
        raise UserError(
            f"{run.weights}: no such file; name a trained run with run_dir=outputs/<run>"
        )
    return load_weights(run.model, run.weights).to(run.hardware.device)


def load_detector(run: Run) -> AnomalyDetector:
    """The run's best network with the chosen score, on the chosen hardware.

    Raises:
        UserError: when the run has no trained network.
    """
    model = load_model(run)
    detector = AnomalyDetector(model, run.score, run.hardware.device, run.map_sigma)
    fit(run.score, detector, run.data)
    return detector


def fit(score: Score, detector: AnomalyDetector, data: SplitDataModule) -> None:
    """Show normal images, and nothing of a batch but them, to a score that learns from them."""
    if not isinstance(score, FittedScore):
        return
    data.setup("test")
    train, held_out = (partial(_normals, detector, data, split) for split in ("train", "val"))
    score.fit(train, held_out)


def judged_split(data: SplitDataModule) -> str:
    """The split to judge a run by: all test images, else the test split, else validation."""
    return next(name for name in ("test_full", "test", "val") if name in data.splits)


def calibrate(run: Run, detector: AnomalyDetector) -> ConformalCalibration:
    """Scores of held-out normal images, one of each patient, for conformal p-values.

    From the split ``calibration`` where there is one; else from ``val``, which has chosen the
    epoch, so that false alarms may be a little more than promised. They are kept in the run's
    ``calibration.json``, with what they are of.
    """
    split = "calibration" if "calibration" in run.data.splits else "val"
    patients = {record["id"]: record["patient"] for record in run.data.splits[split]}
    first: dict[str, float] = {}
    for batch, finding in examine(detector, run.data.loader(split)):
        for identifier, score in zip(batch["id"], finding.score.tolist(), strict=True):
            first.setdefault(patients[identifier], score)
    calibration = ConformalCalibration(np.array(list(first.values())))
    content = _judge_of(run) | {"split": split} | calibration.to_json()
    write_json(run.folder.calibration, content)
    return calibration


def load_calibration(run: Run) -> ConformalCalibration | None:
    """The run's own, if it is of the score and weights in use; else None, and the log says why.

    Raises:
        UserError: when the file is damaged.
    """
    path = run.folder.calibration
    if not path.is_file():
        log.info(
            "%s does not exist: there are no p-values and flags; task=evaluate writes it where "
            "there are normal images",
            path,
        )
        return None
    content = _read(path)
    for key, now in _judge_of(run).items():
        if content.get(key, now) != now:  # whoever writes only scores vouches for them
            log.warning(
                "%s is of %s %s, not %s: there are no p-values and flags; "
                "calibrate anew with task=evaluate and the score of now",
                *(path, key, content[key], now),
            )
            return None
    return ConformalCalibration.from_json(content, path)


def _judge_of(run: Run) -> dict[str, Any]:
    """What a number of this run depends on: the score, its parameters, the weights."""
    return describe_score(run.score) | {"weights_sha256": weights_digest(run.weights)}


def describe_score(score: Any) -> dict[str, Any]:
    """Class and constructor arguments of a score, as JSON; what it learned is left out."""
    arguments = {}
    for name in signature(type(score)).parameters:
        value = getattr(score, name, None)
        if isinstance(value, Mapping):
            value = {key: describe_score(member) for key, member in value.items()}
        if isinstance(value, tuple):
            value = list(value)
        arguments[name] = value
    return {"score": type(score).__name__, "arguments": arguments}


def weights_digest(path: Path) -> str:
    """SHA-256 of a file of weights, by which what was made with them is told from the rest.

    Of a file that has not changed since it is not computed again.
    """
    stat = path.stat()
    return _digest(path.resolve(), (stat.st_ino, stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=8)
def _digest(path: Path, version: tuple[int, int, int]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not a JSON file ({error}); calibrate the run anew") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no table of values; calibrate the run anew")
    return content


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


def healthy_scale(run: Run, detector: AnomalyDetector) -> tuple[float, str]:
    """Top of the heat maps' scale, above 0, and in words where it comes from.

    Measured once on the run's held-out images and kept in its ``heat_scale.json``, so that every
    map of a run has the same scale, also where the images are not at hand.

    Raises:
        UserError: when it has to be measured and the data cannot be read.
    """
    path = run.folder.heat_scale
    depends = {
        "weights_sha256": weights_digest(run.weights),
        "map_sigma": run.map_sigma,
    }
    if path.is_file():
        content = _read(path)
        if all(content.get(key) == value for key, value in depends.items()):
            return float(content["scale"]), str(content["source"])
    run.data.setup("test")
    scale, source = measure_scale(detector, run.data.val_dataloader())
    scale = max(scale, 1e-6)
    write_json(path, depends | {"scale": scale, "source": source})
    return scale, source


def measure_scale(detector: AnomalyDetector, loader: DataLoader[Any]) -> tuple[float, str]:
    """A high quantile of the maps of healthy tissue, and in words where it comes from.

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

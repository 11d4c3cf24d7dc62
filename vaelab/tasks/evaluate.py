"""``task=evaluate``: judge a run by numbers, ``metrics.json``, and figures."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaelab.anomaly.calibration import ConformalCalibration, check_alpha
from vaelab.anomaly.detector import Finding
from vaelab.atomic import replacing, write_json
from vaelab.data.index import Record
from vaelab.errors import UserError
from vaelab.metrics.detection import (
    detection_metrics,
    detection_with_intervals,
    roc_points,
    subgroup_detection,
    subgroup_of,
)
from vaelab.metrics.image import mean_squared_error, psnr, squared_error_within
from vaelab.metrics.latent import ACTIVE_THRESHOLD, active_units
from vaelab.objective.elbo import kl_per_dimension, squared_error
from vaelab.report.figures import (
    kl_per_dimension as kl_figure,
)
from vaelab.report.figures import (
    learning_curves,
    roc_curve_figure,
    save_figure,
    score_histogram,
)
from vaelab.tasks.experiment import Experiment
from vaelab.tasks.judging import CALIBRATION, calibrate, examine, judged_split, load_detector
from vaelab.tasks.localise import localise
from vaelab.training.history import read_history

log = logging.getLogger(__name__)


class Evaluate:
    """Writes ``metrics.json``, ``scores.csv`` and ``figures/`` into the run folder.

    What is judged follows from the batch: reconstruction and latent use always; detection
    where it has labels; tumour against the rest where it has segmentations; localisation where
    it has masks or segmentations.

    Detection is judged on all test images and on the balanced split, with intervals by a
    bootstrap over patients, and ``calibration.json`` is written: the scores of held-out normal
    images, which turn a score into a conformal p-value.

    Args:
        alpha: share of false alarms to tolerate where a decision is reported, in (0, 1).
        num_resamples: of the bootstrap.
        seed: of the bootstrap, and of what localisation chooses its threshold on.

    Raises:
        UserError: for a value that cannot work.
    """

    def __init__(self, alpha: float = 0.05, num_resamples: int = 1000, seed: int = 0) -> None:
        check_alpha(alpha)
        if num_resamples < 1:
            raise UserError(f"task.num_resamples={num_resamples}: at least 1 is needed; try 1000")
        self.alpha = alpha
        self.num_resamples = num_resamples
        self.seed = seed

    def __call__(self, experiment: Experiment) -> float:
        """Evaluate on the test split, or the validation split where there is none.

        Returns:
            Mean squared error over voxels and samples.
        """
        detector = load_detector(experiment)
        experiment.data.setup("test")
        tally = _Tally(list(experiment.data.channel_names))
        splits = experiment.data.splits
        split = judged_split(experiment.data)
        for batch, finding in examine(detector, experiment.data.loader(split)):
            tally.add(batch, finding)
        metrics: dict[str, Any] = {
            "weights": experiment.weights.name,
            "score": type(experiment.score).__name__,
        }
        metrics |= tally.metrics(experiment.annealing.target)
        if tally.labels:
            calibration = calibrate(experiment, detector)
            content = calibration.to_json() | {"score": metrics["score"]}
            write_json(experiment.run_dir / CALIBRATION, content)
            metrics |= self._detection(tally, splits, calibration)
        localisation = localise(experiment, detector, self.seed)
        if localisation:
            metrics["localisation"] = localisation
        write_json(experiment.run_dir / "metrics.json", metrics)
        tally.write_scores(experiment.run_dir / "scores.csv")
        _draw(experiment, tally, metrics)
        log.info("%s", _headline(metrics))
        result: float = metrics["reconstruction"]["mse"]
        return result

    def _detection(
        self,
        tally: _Tally,
        splits: Mapping[str, Sequence[Record]],
        calibration: ConformalCalibration,
    ) -> dict[str, Any]:
        """Detection on the balanced split, on all test images, by subgroup, and as decisions."""
        scores, labels = tally.scores_and_labels()
        patient_of_id = {r["id"]: r["patient"] for records in splits.values() for r in records}
        patients = [patient_of_id[identifier] for identifier in tally.ids]
        balanced_ids = {record["id"] for record in splits["test"]}
        balanced = np.array([identifier in balanced_ids for identifier in tally.ids])
        groups = [subgroup_of(Path(identifier).name) for identifier in tally.ids]
        flagged = calibration.flag(scores, self.alpha)
        warning = calibration.warning(self.alpha)
        if warning:
            log.warning("%s", warning)
        threshold = calibration.threshold(self.alpha)
        return {
            "detection": self._judge(
                scores[balanced], labels[balanced], _where(patients, balanced)
            ),
            "detection_all": self._judge(scores, labels, patients),
            "detection_by_group": {
                name: asdict(found)
                for name, found in subgroup_detection(scores, labels, groups).items()
            },
            "decisions": {
                "alpha": self.alpha,
                "calibration_images": calibration.count,
                "threshold": threshold if np.isfinite(threshold) else None,
                "expected_false_alarm_rate": calibration.false_alarm_rate(self.alpha),
                "false_alarm_rate_95_percent_range": calibration.false_alarm_range(self.alpha),
                "false_alarm_rate": float(flagged[labels == 0].mean()),
                "sensitivity": float(flagged[labels == 1].mean()),
            },
        }

    def _judge(
        self, scores: np.ndarray, labels: np.ndarray, patients: Sequence[str]
    ) -> dict[str, Any]:
        result: dict[str, Any] = asdict(detection_metrics(scores, labels))
        few = min(len(set(_where(patients, labels == label))) for label in (0, 1)) < 2
        if not few:  # a bootstrap over one patient has nothing to draw
            intervals = detection_with_intervals(
                scores, labels, patients, num_resamples=self.num_resamples, seed=self.seed
            )
            result["intervals_95_percent"] = {
                name: [estimate.low, estimate.high] for name, estimate in intervals.items()
            }
        return result


def _where(values: Sequence[str], chosen: np.ndarray) -> list[str]:
    return [value for value, wanted in zip(values, chosen, strict=True) if wanted]


class _Tally:
    """Numbers of all samples; nothing the size of an image is kept."""

    def __init__(self, channel_names: list[str]) -> None:
        self.channel_names = channel_names
        self.ids: list[str] = []
        self.labels: list[int] = []
        self.scores: list[Tensor] = []
        self.errors: list[Tensor] = []
        self.mses: list[Tensor] = []
        self.psnrs: list[Tensor] = []
        self.mus: list[Tensor] = []
        self.kls: list[Tensor] = []
        self.tumour = torch.zeros(2, dtype=torch.float64)
        self.rest = torch.zeros(2, dtype=torch.float64)

    def add(self, batch: dict[str, Any], finding: Finding) -> None:
        x: Tensor = batch["image"]
        self.ids += list(batch["id"])
        self.scores.append(finding.score)
        self.errors.append(squared_error(x, finding.x_hat))
        self.mses.append(mean_squared_error(x, finding.x_hat))
        self.psnrs.append(psnr(x, finding.x_hat))
        self.mus.append(finding.output.mu)
        self.kls.append(kl_per_dimension(finding.output.mu, finding.output.logvar))
        if "label" in batch:
            self.labels += batch["label"].tolist()
        if "seg" in batch:
            tumour = batch["seg"] > 0
            self.tumour += torch.stack(squared_error_within(x, finding.x_hat, tumour))
            self.rest += torch.stack(squared_error_within(x, finding.x_hat, ~tumour))

    def metrics(self, beta: float) -> dict[str, Any]:
        mse, ratio = torch.cat(self.mses), torch.cat(self.psnrs)  # (N, C)
        kl, mu = torch.cat(self.kls), torch.cat(self.mus)  # (N, z)
        recon = float(torch.cat(self.errors).double().sum())
        kl_sum = float(kl.double().sum())
        result: dict[str, Any] = {
            "samples": len(self.ids),
            "reconstruction": {
                "mse": float(mse.mean()),
                "mse_per_channel": self._by_channel(mse),
                "psnr_db_per_channel": self._by_channel(ratio),
            },
            "objective": {
                "beta": beta,
                "recon_sum": recon,
                "kl_sum_nats": kl_sum,
                "neg_elbo_sum": recon + beta * kl_sum,
            },
            "latent": {
                "active_units": active_units(mu) if len(mu) > 1 else None,
                "units": mu.shape[1],
                "kl_nats_per_sample": kl_sum / len(self.ids),
            },
        }
        if float(self.tumour[1]) > 0:
            tumour, rest = (float(total / count) for total, count in (self.tumour, self.rest))
            result["tumour"] = {"mse_tumour": tumour, "mse_rest": rest, "ratio": tumour / rest}
        return result

    def scores_and_labels(self) -> tuple[np.ndarray, np.ndarray]:
        return torch.cat(self.scores).numpy(), np.array(self.labels)

    def kl_of_units(self) -> np.ndarray:
        mean: np.ndarray = torch.cat(self.kls).mean(0).numpy()
        return mean

    def write_scores(self, path: Path) -> None:
        labels: list[int | str] = [*self.labels] if self.labels else [""] * len(self.ids)
        rows = zip(self.ids, labels, torch.cat(self.scores).tolist(), strict=True)
        with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "label", "score"])
            writer.writerows(rows)

    def _by_channel(self, values: Tensor) -> dict[str, float | None]:
        """Mean over samples; None where it is not finite, as PSNR is for a constant channel."""
        means = [mean if math.isfinite(mean) else None for mean in values.mean(0).tolist()]
        return dict(zip(self.channel_names, means, strict=True))


def _draw(experiment: Experiment, tally: _Tally, metrics: dict[str, Any]) -> None:
    folder = experiment.run_dir / "figures"
    save_figure(
        kl_figure(tally.kl_of_units(), threshold=ACTIVE_THRESHOLD), folder / "kl_per_dimension.png"
    )
    history = experiment.run_dir / "logs" / "metrics.csv"
    if history.is_file():
        save_figure(learning_curves(read_history(history)), folder / "learning_curves.png")
    if "detection" in metrics:
        scores, labels = tally.scores_and_labels()
        auroc = metrics["detection_all"]["auroc"]
        save_figure(roc_curve_figure(*roc_points(scores, labels), auroc), folder / "roc.png")
        name = str(metrics["score"])
        save_figure(score_histogram(scores, labels, name), folder / "score_histogram.png")


def _headline(metrics: dict[str, Any]) -> str:
    parts = [f"{metrics['samples']} samples", f"MSE {metrics['reconstruction']['mse']:.4g}"]
    latent = metrics["latent"]
    parts.append(f"active units {latent['active_units']}/{latent['units']}")
    if "detection" in metrics:
        detection = metrics["detection"]
        parts.append(f"AUROC {detection['auroc']:.3f} AP {detection['average_precision']:.3f}")
        if "intervals_95_percent" in detection:
            low, high = detection["intervals_95_percent"]["auroc"]
            parts[-1] += f" (AUROC 95 % interval {low:.3f} to {high:.3f})"
    if "tumour" in metrics:
        parts.append(f"error on tumour voxels {metrics['tumour']['ratio']:.2f} times the rest")
    if "localisation" in metrics:
        found = metrics["localisation"]
        parts.append(
            f"{found['unit']} AP {found['average_precision']:.3f} (blind "
            f"{found['lesion_share']:.3f}) Dice {found['dice']:.3f}"
        )
    return "evaluated: " + ", ".join(parts)

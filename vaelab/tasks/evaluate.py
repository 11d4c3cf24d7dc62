"""``task=evaluate``: judge a run by numbers, ``metrics.json``, and figures."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vaelab.anomaly.calibration import ConformalCalibration, check_alpha
from vaelab.assembly import PARTS, Run, Task
from vaelab.atomic import write_json
from vaelab.data.index import Record
from vaelab.errors import UserError
from vaelab.evaluation.diagnostics import ImportanceWeights, latent_diagnostics, latent_headline
from vaelab.evaluation.judging import calibrate, examine, judged_split, load_detector
from vaelab.evaluation.localisation import localise
from vaelab.evaluation.objective import ObjectiveSums
from vaelab.evaluation.tally import Tally
from vaelab.latents.probing import probe_factors, probe_headline
from vaelab.metrics.detection import (
    detection_metrics,
    detection_with_intervals,
    roc_points,
    subgroup_detection,
    subgroup_of,
)
from vaelab.report.canvas import save_figure
from vaelab.report.diagnostic_figures import decomposition_figure, probe_figure
from vaelab.report.score_figures import roc_curve_figure, score_histogram
from vaelab.report.training_figures import kl_per_unit, learning_curves
from vaelab.runs.history import read_history

log = logging.getLogger(__name__)


class Evaluate(Task):
    """Writes ``metrics.json``, ``scores.csv`` and ``figures/`` into the run folder.

    What is judged follows from the batch: reconstruction and latent space always; detection
    where it has labels; tumour against the rest where it has segmentations; localisation where
    it has masks or segmentations; linear probes where there is a table of factors.

    Detection is judged on all test images and on the balanced split, with intervals by a
    bootstrap over patients, and ``calibration.json`` is written: the scores of held-out normal
    images, which turn a score into a conformal p-value.

    Args:
        alpha: share of false alarms to tolerate where a decision is reported, in (0, 1).
        num_resamples: of the bootstrap.
        seed: of the bootstrap, of draws of z, and of what localisation chooses its threshold on.
        importance_samples: z decoded for each image, for a bound on its log-likelihood; 0 for none.
        probe_factors: columns of the dataset's ``factors.csv`` to read from the latents, where
            there is one.

    Raises:
        UserError: for a value that cannot work.
    """

    parts = tuple(name for name in PARTS if name not in ("optimizer", "callbacks", "logger"))

    def __init__(
        self,
        alpha: float = 0.05,
        num_resamples: int = 1000,
        seed: int = 0,
        importance_samples: int = 8,
        probe_factors: Sequence[str] = (),
    ) -> None:
        check_alpha(alpha)
        if num_resamples < 1:
            raise UserError(f"task.num_resamples={num_resamples}: at least 1 is needed; try 1000")
        if importance_samples < 0:
            raise UserError(
                f"task.importance_samples={importance_samples}: cannot be negative; 0 is off"
            )
        self.alpha = alpha
        self.num_resamples = num_resamples
        self.seed = seed
        self.importance_samples = importance_samples
        self.probe_factors = list(probe_factors)

    def __call__(self, run: Run) -> float:
        """Evaluate on the test split, or the validation split where there is none.

        Returns:
            Mean squared error over voxels and samples.
        """
        detector = load_detector(run)
        run.data.setup("test")
        tally = Tally(list(run.data.channel_names), detector.device)
        weights = ImportanceWeights(
            detector.model, detector.device, self.importance_samples, self.seed
        )
        splits = run.data.splits
        split = judged_split(run.data)
        objective = ObjectiveSums(run)
        for batch, finding in examine(detector, run.data.loader(split)):
            tally.add(batch, finding)
            objective.add(batch, finding.output)
            weights.add(batch["image"], finding.output.mu, finding.output.logvar)
        metrics: dict[str, Any] = {
            "weights": run.weights.name,
            "score": type(run.score).__name__,
        }
        metrics |= tally.metrics(run.annealing.target)
        metrics["objective"] |= objective.metrics()
        if len(tally.ids) > 1:
            metrics["latent"] |= latent_diagnostics(tally.mu, tally.logvar, self.seed)
        metrics["latent"] |= weights.metrics()
        probes = probe_factors(
            run, detector.model, self.probe_factors, self.num_resamples, self.seed
        )
        if probes:
            metrics["probes"] = probes
        if tally.labels:
            calibration = calibrate(run, detector)
            metrics |= self._detection(tally, splits, calibration)
        localisation = localise(run, detector, self.seed)
        if localisation:
            metrics["localisation"] = localisation
        write_json(run.folder.metrics, metrics)
        tally.write_scores(run.folder.scores)
        _draw(run, tally, metrics)
        log.info("%s", _headline(metrics))
        log.info("latent space: %s", ", ".join(latent_headline(metrics["latent"])))
        if probes:
            log.info("linear probes: %s", "; ".join(probe_headline(probes)))
        result: float = metrics["reconstruction"]["mse"]
        return result

    def _detection(
        self,
        tally: Tally,
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


def _draw(run: Run, tally: Tally, metrics: dict[str, Any]) -> None:
    folder = run.folder.figures
    save_figure(kl_per_unit(tally.kl_of_units()), folder / "kl_per_unit.png")
    decomposition = metrics["latent"].get("kl_decomposition_nats")
    if decomposition:
        save_figure(decomposition_figure(decomposition), folder / "kl_decomposition.png")
    if "probes" in metrics:
        save_figure(probe_figure(metrics["probes"]), folder / "probes.png")
    history = run.folder.history
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

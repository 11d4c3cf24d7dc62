"""``task=evaluate``: judge a run by numbers, ``metrics.json``, and figures."""

from __future__ import annotations

import csv
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaelab.anomaly.detector import Finding
from vaelab.atomic import replacing
from vaelab.metrics.detection import detection_metrics, roc_points
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
from vaelab.tasks.judging import examine, load_detector
from vaelab.training.history import read_history

log = logging.getLogger(__name__)


class Evaluate:
    """Writes ``metrics.json``, ``scores.csv`` and ``figures/`` into the run folder.

    What is judged follows from the batch: reconstruction and latent use always; detection
    where it has labels; tumour against the rest where it has segmentations.
    """

    def __call__(self, experiment: Experiment) -> float:
        """Evaluate on the test split, or the validation split where there is none.

        Returns:
            Mean squared error over voxels and samples.
        """
        detector = load_detector(experiment)
        experiment.data.setup("test")
        tally = _Tally(list(experiment.data.channel_names))
        for batch, finding in examine(detector, experiment.data.test_dataloader()):
            tally.add(batch, finding)
        metrics: dict[str, Any] = {
            "weights": experiment.weights.name,
            "score": type(experiment.score).__name__,
        }
        metrics |= tally.metrics(experiment.annealing.target)
        _write_json(experiment.run_dir / "metrics.json", metrics)
        tally.write_scores(experiment.run_dir / "scores.csv")
        _draw(experiment, tally, metrics)
        log.info("%s", _headline(metrics))
        result: float = metrics["reconstruction"]["mse"]
        return result


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
        if self.labels:
            result["detection"] = asdict(detection_metrics(*self.scores_and_labels()))
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

    def _by_channel(self, values: Tensor) -> dict[str, float]:
        return dict(zip(self.channel_names, values.mean(0).tolist(), strict=True))


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
        auroc = metrics["detection"]["auroc"]
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
    if "tumour" in metrics:
        parts.append(f"error on tumour voxels {metrics['tumour']['ratio']:.2f} times the rest")
    return "evaluated: " + ", ".join(parts)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")

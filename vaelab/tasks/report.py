"""``task=report``: one HTML page of a run, to look at and to send to a colleague."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vaelab.anomaly.detector import Prediction
from vaelab.assembly import Run, Task
from vaelab.errors import UserError
from vaelab.evaluation.calibrating import Calibrated, own_calibration
from vaelab.evaluation.heat_scale import heat_scale
from vaelab.evaluation.judge import judge_of, judged_split
from vaelab.evaluation.reported import headline, metric_rows, remarks, tables
from vaelab.evaluation.results import Evaluation
from vaelab.metrics.detection import subgroup_of
from vaelab.report.cases import AnyCase, Case, VolumeCase
from vaelab.report.report_page import write_report

log = logging.getLogger(__name__)

EXTREMES = 10  # lowest-scored sick and highest-scored normal images that are always shown
PACKAGES = ("torch", "torchvision", "lightning", "monai", "hydra-core", "nibabel", "numpy")
TRUTH = {0: "normal", 1: "sick", None: ""}
CAPTIONS = {
    "learning_curves": "Learning curves",
    "kl_per_unit": "KL of each latent unit",
    "roc": "ROC curve",
    "score_histogram": "Anomaly scores",
    "kl_decomposition": "Where the KL goes",
    "probes": "Probes of known factors",
    "stability": "Stability across seeds",
    "latent_pca": "Latent means of all subjects: principal components",
    "latent_umap": "Latent means of all subjects: UMAP",
    "latent_trajectories": "Latent means from one time point of a patient to the next",
}
# What task=decode draws.
DECODED = {
    "samples": "Samples from the prior",
    "interpolation": "Between two subjects",
    "traversal": "One latent unit at a time",
}


class Report(Task):
    """Writes ``report.html``: what was trained on what, the metrics, a gallery of cases.

    Reads what ``task=evaluate`` left in the run folder.

    Args:
        max_cases: images in the gallery; of a larger split the extremes and an even choice of the
            rest are shown.
        max_volumes: volumes that can be leafed through, about 3 MB each.
        alpha: share of false alarms to tolerate, for the flags.

    Raises:
        UserError: when a number is out of range, or the run has not been evaluated.
    """

    parts = ("dataset", "model", "hardware", "score", "train", "logging")

    def __init__(self, max_cases: int = 100, max_volumes: int = 5, alpha: float = 0.05) -> None:
        if max_cases < 1 or max_volumes < 0:
            raise UserError(
                f"task.max_cases={max_cases}, task.max_volumes={max_volumes}: at least 1 and 0"
            )
        self.max_cases = max_cases
        self.max_volumes = max_volumes
        self.alpha = alpha

    def __call__(self, run: Run) -> None:
        """Write the page of an evaluated run."""
        folder = run.folder
        evaluation = Evaluation.read(folder.metrics)
        judge = judge_of(run)
        run.data.setup("test")
        splits = run.data.splits
        split = judged_split(run.data)
        scale = heat_scale(run)
        chosen = self._choose(folder.scores)
        places = [i for i, record in enumerate(splits[split]) if record["id"] in chosen]
        calibrated = own_calibration(run)
        cases: list[AnyCase] = []
        for batch, prediction in judge.examine(split, places):
            for index in range(len(batch["id"])):
                cases.append(self._case(batch, prediction, index, run, calibrated))
        config = folder.config.read_text(encoding="utf-8")
        path = write_report(
            folder.report,
            title=folder.name,
            headline=headline(evaluation),
            summary=_summary(run, evaluation, calibrated),
            metrics=metric_rows(evaluation),
            tables=tables(evaluation),
            remarks=remarks(evaluation),
            figures={
                caption: (place / f"{name}.png").read_bytes()
                for place, captions in ((folder.figures, CAPTIONS), (folder.decoded, DECODED))
                for name, caption in captions.items()
                if (place / f"{name}.png").is_file()
            },
            cases=cases,
            heat_scale=scale.top,
            scale_source=scale.source,
            heat_name=scale.quantity,
            config_yaml=config,
            versions={name: version(name) for name in PACKAGES},
            splits={name: len(records) for name, records in splits.items()},
            max_volumes=self.max_volumes,
        )
        log.info("report in %s", path)

    def _choose(self, scores: Path) -> set[str]:
        """Ids for the gallery: the extremes, then evenly among the rest."""
        with scores.open(newline="", encoding="utf-8") as file:
            rows = sorted(csv.DictReader(file), key=lambda row: float(row["score"]))
        misses = [row["id"] for row in rows if row["label"] == "1"][:EXTREMES]
        alarms = [row["id"] for row in rows if row["label"] == "0"][-EXTREMES:]
        ordered = list(dict.fromkeys([*misses, *alarms, *_evenly(rows, self.max_cases)]))
        return set(ordered[: self.max_cases])

    def _case(
        self,
        batch: dict[str, Any],
        prediction: Prediction,
        index: int,
        run: Run,
        calibrated: Calibrated | None,
    ) -> AnyCase:
        score = float(prediction.score[index])
        name = str(batch["id"][index])
        calibration = calibrated.calibration if calibrated else None
        common: dict[str, Any] = {
            "id": name,
            "truth": TRUTH[int(batch["label"][index]) if "label" in batch else None],
            "score": score,
            "p_value": float(calibration.p_value(score)) if calibration else None,
            "flagged": bool(calibration.flag(score, self.alpha)) if calibration else None,
            "group": subgroup_of(Path(name).name) or "",
            "heatmap": prediction.heatmap[index].numpy(),
        }
        image: Tensor = batch["image"][index]
        x_hat = prediction.x_hat[index]
        if image.dim() == 3:
            return Case(image=image[0].numpy(), reconstruction=x_hat[0].numpy(), **common)
        channels = list(run.data.channel_names)
        depth, height, width = run.data.spacing or (1.0, 1.0, 1.0)
        return VolumeCase(
            modalities=dict(zip(channels, image.numpy(), strict=True)),
            reconstructions=dict(zip(channels, x_hat.numpy(), strict=True)),
            seg=batch["seg"][index, 0].numpy() if "seg" in batch else None,
            spacing=(depth, height, width),
            **common,
        )


def _evenly(rows: Sequence[dict[str, str]], count: int) -> list[str]:
    places = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))
    return [rows[place]["id"] for place in places]


def _summary(run: Run, evaluation: Evaluation, calibrated: Calibrated | None) -> dict[str, str]:
    data = f"{type(run.data).__name__}, {run.data.root_dir}"
    parameters = sum(weight.numel() for weight in run.model.parameters())
    model = f"{type(run.model).__name__}, {run.model.z_dim} latent units"
    return {
        "Data": data,
        "Model": f"{model}, {parameters / 1e6:.1f} M parameters",
        "Training": f"up to {run.train.max_epochs} epochs, best by "
        f"{run.train.monitor}, seed {run.train.seed}",
        "Score": evaluation.score,
        "Judged on": f"{evaluation.samples} samples",
        **({"p-values by": calibrated.source} if calibrated else {}),
    }

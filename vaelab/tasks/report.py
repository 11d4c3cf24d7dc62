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
from vaelab.evaluation.localisation import Localisation
from vaelab.evaluation.results import Evaluation
from vaelab.metrics.detection import Detection, subgroup_of
from vaelab.report.cases import AnyCase, Case, VolumeCase
from vaelab.report.report_page import Headline, MetricRow, write_report

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
    "probes": "Linear probes of known factors",
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
NAMES = {
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "sensitivity_at_specificity_90": "Sensitivity at 90 % specificity",
    "sensitivity_at_specificity_95": "Sensitivity at 95 % specificity",
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
            headline=_headline(evaluation),
            summary=_summary(run, evaluation, calibrated),
            metrics=_rows(evaluation),
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


def _headline(evaluation: Evaluation) -> Headline:
    latent, decisions = evaluation.latent, evaluation.decisions
    auroc = None
    if evaluation.detection:
        auroc = _detection_rows(evaluation.detection, "half normal, half sick")[0]
    return Headline(
        score=evaluation.score,
        samples=evaluation.samples,
        mse=evaluation.reconstruction.mse,
        units=latent.units,
        active_units=latent.active_units,
        auroc=auroc,
        sensitivity=decisions.sensitivity if decisions else None,
        false_alarm_rate=decisions.false_alarm_rate if decisions else None,
        tumour_ratio=evaluation.tumour.ratio if evaluation.tumour else None,
    )


def _rows(evaluation: Evaluation) -> list[MetricRow]:
    balanced, whole = evaluation.detection, evaluation.detection_all
    rows = _detection_rows(balanced, "half normal, half sick") if balanced else []
    if whole and not (balanced and whole.counts == balanced.counts):
        rows += _detection_rows(whole, "all images")
    made = evaluation.decisions
    if made:
        note = f"flagged at α = {made.alpha:g} by {made.calibration}"
        rows.append(MetricRow("False-alarm rate", made.false_alarm_rate, note=note))
        rows.append(MetricRow("Sensitivity", made.sensitivity, note=note))
    latent = evaluation.latent
    mse = evaluation.reconstruction.mse
    rows.append(MetricRow("Mean squared error", mse, note="per pixel or voxel"))
    rows.append(MetricRow("KL", latent.kl_nats_per_sample, note="nats per sample"))
    if latent.active_units is not None:
        rows.append(MetricRow("Active units", latent.active_units, note=f"of {latent.units}"))
    if evaluation.tumour:
        ratio = evaluation.tumour.ratio
        rows.append(MetricRow("Error on tumour voxels", ratio, note="times that of the rest"))
    if evaluation.localisation:
        rows += _localisation_rows(evaluation.localisation)
    return rows


def _detection_rows(found: Detection, images: str) -> list[MetricRow]:
    ends = found.intervals_95_percent or {}
    rows = []
    for name, label in NAMES.items():
        low, high = ends.get(name, (None, None))
        note = f"{images}; 95 % by patient"
        rows.append(MetricRow(label, getattr(found, name), low, high, note))
    return rows


def _localisation_rows(found: Localisation) -> list[MetricRow]:
    where = f"{found.judged_on}, {found.judged_images} images"
    blind = f"{where}; of {found.map}; a blind map would have {found.lesion_share:.2g}"
    rows = [
        # Its bracket is of rounding and would be taken for an interval of confidence.
        MetricRow(
            f"{found.unit.capitalize()} average precision", found.average_precision, note=blind
        ),
        MetricRow(f"Dice (threshold from {found.threshold_from})", found.dice, note=where),
    ]
    if found.detection_rate is not None:
        alarms = (
            f"{found.false_positives_per_image:.2g} false alarms per image, "
            f"{100 * found.flagged_share:.2g} % of all {found.unit}s flagged"
        )
        note = f"share of {found.lesions} lesions, at the same threshold; {alarms}"
        rows.append(MetricRow("Lesions found", found.detection_rate, note=note))
    return rows

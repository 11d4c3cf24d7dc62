"""``task=model_card``: what a trained run is and is not, in Markdown that hubs read.

After Mitchell et al. 2019 (arXiv:1810.03993): intended use, data, how it was judged, limits.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from vaelab.assembly import Run, Task
from vaelab.atomic import replacing
from vaelab.errors import UserError
from vaelab.evaluation.results import Evaluation
from vaelab.metrics.detection import Detection
from vaelab.report.markdown import literal, table
from vaelab.runs.folder import RunFolder
from vaelab.runs.reading import read_config

log = logging.getLogger(__name__)

MEASURES = {
    "auroc": ("AUROC", "roc_auc"),
    "average_precision": ("average precision", "average_precision"),
    "sensitivity_at_specificity_90": ("sensitivity at 90 % specificity", "recall"),
}
"""Number of a ``Detection`` → its name, and its type in a hub's index."""


class ModelCard(Task):
    """Writes ``model_card.md`` into the run folder.

    Args:
        license: of the weights, by its SPDX name; None leaves it open.
    """

    parts = ()

    def __init__(self, license: str | None = None) -> None:  # the key that hubs know
        self.license = license

    def __call__(self, run: Run) -> None:
        """Read the run's files and write.

        Raises:
            UserError: when the run has not been evaluated.
        """
        folder = run.folder
        config, evaluation = read_config(folder), Evaluation.read(folder.metrics)
        head = yaml.safe_dump(
            card_head(folder, config, evaluation, self.license), sort_keys=False, allow_unicode=True
        )
        body = "\n\n".join(card_sections(folder, config, evaluation))
        with replacing(folder.model_card) as unfinished:
            unfinished.write_text(f"---\n{head}---\n\n{body}\n", encoding="utf-8")
        log.info("model card in %s", folder.model_card)


def card_head(
    folder: RunFolder, config: Mapping[str, Any], evaluation: Evaluation, license_name: str | None
) -> dict[str, Any]:
    """What hubs index."""
    dataset = str(config["choices"]["dataset"])
    head: dict[str, Any] = {
        "library_name": "vaelab",
        "tags": ["vae", "medical-imaging", "anomaly-detection"],
    }
    if license_name:
        head["license"] = license_name
    metrics = [
        {"type": "mse", "name": "reconstruction error", "value": evaluation.reconstruction.mse}
    ]
    detection = evaluation.detection_all or evaluation.detection
    if detection:
        metrics += [
            {"type": kind, "name": name, "value": getattr(detection, key)}
            for key, (name, kind) in MEASURES.items()
        ]
    head["metrics"] = [metric["type"] for metric in metrics]
    head["model-index"] = [
        {
            "name": folder.name,
            "results": [
                {
                    "task": {"type": "anomaly-detection", "name": "anomaly detection"},
                    "dataset": {"type": dataset, "name": dataset},
                    "metrics": metrics,
                }
            ],
        }
    ]
    return head


def card_sections(
    folder: RunFolder, config: Mapping[str, Any], evaluation: Evaluation
) -> Iterator[str]:
    """The text, a heading and what belongs to it at a time."""
    choices, train = config["choices"], config["train"]
    model = str(config["model"]["_target_"]).rpartition(".")[2]
    yield f"# {literal(folder.name)}"
    yield (
        f"A variational autoencoder ({model}, {evaluation.latent.units} latent units) of medical "
        f"images, trained by vaelab on `{choices['dataset']}`.\n\n**Not a medical device.** For "
        "research; not for diagnosis, triage or any decision about a patient."
    )
    if folder.report_card.is_file():
        yield (
            "![Originals, reconstructions and heat maps of the first test cases]"
            f"({folder.report_card.name})"
        )
    yield (
        "## Intended use\n\nResearch on reconstruction, latent spaces and unsupervised anomaly "
        "detection, on images like those it has learned from, prepared in the same way. A high "
        "score says that an image is unlike the training images; it does not say why."
    )
    yield "## Data\n\n" + table(
        ["split", "images", "patients"], [(path.stem, *_counts(path)) for path in _splits(folder)]
    )
    yield "Splits are by patient: no patient is in two of them."
    yield "## Training\n\n" + table(
        ["key", "value"],
        [
            *((group, choices[group]) for group in ("dataset", "model", "objective", "annealing")),
            *((f"train.{key}", train[key]) for key in ("max_epochs", "lr", "kl_beta", "seed")),
            ("best epoch by", train["monitor"]),
        ],
    )
    yield from _judged(folder, evaluation)
    yield from _shift(folder)
    yield "## Limits\n\n" + "\n".join(f"- {limit}" for limit in _limits(folder, evaluation))


def _judged(folder: RunFolder, evaluation: Evaluation) -> Iterator[str]:
    rows = [("reconstruction error (mse, of z = mu)", f"{evaluation.reconstruction.mse:.4g}", "")]
    detection = evaluation.detection_all or evaluation.detection
    if detection:
        rows += [
            (name, f"{getattr(detection, key):.3f}", _interval(detection, key))
            for key, (name, _) in MEASURES.items()
        ]
    if evaluation.localisation:
        where = evaluation.localisation
        rows.append((f"{where.unit} average precision", f"{where.average_precision:.3f}", ""))
        rows.append((f"{where.unit} Dice", f"{where.dice:.3f}", ""))
    counts = ""
    if detection:
        counts = f" ({', '.join(f'{n} {name}' for name, n in detection.counts.items())})"
    yield (
        f"## How it was judged\n\nOn {evaluation.samples} images that it has not learned from"
        f"{counts}, by the score {evaluation.score}. Intervals are of 95 %, by a bootstrap over "
        "patients.\n\n" + table(["measure", "value", "95 % interval"], rows)
    )
    decided = evaluation.decisions
    if decided:
        low, high = decided.false_alarm_rate_95_percent_range
        yield (
            f"Calibrated on {decided.calibration_images} normal images to at most "
            f"{decided.alpha:.0%} of false alarms ({low:.0%} to {high:.0%} for a calibration of "
            f"this size): {decided.false_alarm_rate:.0%} of the normal and "
            f"{decided.sensitivity:.0%} of the sick test images were flagged."
        )


def _shift(folder: RunFolder) -> Iterator[str]:
    path = folder.result("robustness", "json")
    if not path.is_file():
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = [(name, f"{of['auroc']:.3f}") for name, of in found["shifts"].items()]
        clean = f"{found['clean']['auroc']:.3f}"
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not what task=robustness writes; judge the run anew") from error
    yield "## On other machines, simulated\n\n" + table(
        ["shift", "AUROC"], [("none", clean), *rows]
    )


def _limits(folder: RunFolder, evaluation: Evaluation) -> Iterator[str]:
    yield (
        "Images of other hospitals, machines or populations may score high without a finding; "
        "p-values and flags hold only for images like those of the calibration."
    )
    if not folder.result("robustness", "json").is_file():
        yield "How it fares under shifts between machines has not been measured for this run."
    if not _labelled(evaluation):
        yield "Its data has no labels of sick and healthy images: detection has not been measured."
    if evaluation.localisation is None:
        yield "Where its maps point has not been compared with lesions."
    active = evaluation.latent.active_units
    if active is not None:
        yield f"Of {evaluation.latent.units} latent units {active} are active."


def _labelled(evaluation: Evaluation) -> bool:
    return (evaluation.detection_all or evaluation.detection) is not None


def _interval(detection: Detection, key: str) -> str:
    ends = (detection.intervals_95_percent or {}).get(key)
    return f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else ""


def _splits(folder: RunFolder) -> list[Path]:
    """In the order of their use."""
    order = ["train", "val", "calibration", "test", "test_full"]
    there = {path.stem: path for path in folder.splits.glob("*.csv")}
    return [there[name] for name in (*order, *sorted(set(there) - set(order))) if name in there]


def _counts(split: Path) -> tuple[int, int]:
    """Images and patients."""
    with split.open(newline="", encoding="utf-8") as file:
        patients = [row["patient"] for row in csv.DictReader(file)]
    return len(patients), len(set(patients))

"""What a report says of ``metrics.json``: rows, tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping

from vaelab.evaluation.groups import DetectionWithin
from vaelab.evaluation.localisation import Localisation
from vaelab.evaluation.map_tally import MapFigures
from vaelab.evaluation.results import Evaluation
from vaelab.metrics.bootstrap import Estimate
from vaelab.metrics.detection import Detection
from vaelab.report.report_page import Headline, MetricRow, ReportTable

NAMES = {
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "sensitivity_at_specificity_90": "Sensitivity at 90 % specificity",
    "sensitivity_at_specificity_95": "Sensitivity at 95 % specificity",
}


def headline(evaluation: Evaluation) -> Headline:
    """What a run is worth."""
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


def metric_rows(evaluation: Evaluation) -> list[MetricRow]:
    """The headline numbers."""
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
    papers = found.at_best_test_threshold
    if papers:
        note = f"{images}; as papers print it: chosen on these images, out of reach for any user"
        rows.append(MetricRow("Accuracy at the best test threshold", papers.accuracy, note=note))
        rows.append(MetricRow("F1 at the best test threshold", papers.f1, note=note))
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
            f"{found.false_positives_per_image:.1f} false alarms per image, "
            f"{100 * found.flagged_share:.2g} % of all {found.unit}s flagged"
        )
        note = f"share of {found.lesions} lesions, at the same threshold; {alarms}"
        rows.append(MetricRow("Lesions found", found.detection_rate, note=note))
    return rows


def tables(evaluation: Evaluation) -> list[ReportTable]:
    """Figures that need more than a row."""
    found = []
    if evaluation.detection_all and evaluation.detection_within:
        found.append(_group_table(evaluation.detection_all, evaluation.detection_within))
    if evaluation.localisation:
        found.append(_map_table(evaluation.localisation))
    return found


def remarks(evaluation: Evaluation) -> list[str]:
    """What a reader must know before any number."""
    shift = evaluation.shift
    return [_sentence(shift.sentence())] if shift and shift.alarm else []


def _group_table(found: Detection, within: Mapping[str, DetectionWithin]) -> ReportTable:
    """Detection within groups, and what their labels alone would reach."""
    labels = {c: of.label_alone for c, of in within.items() if of.label_alone is not None}
    alone = ", ".join(f"{column} {auroc:.2f}" for column, auroc in labels.items())
    better = [column for column, auroc in labels.items() if auroc >= found.auroc]
    warning = f"; at least as good as the score: {', '.join(better)} alone" if better else ""
    rows = [["all images", f"{found.counts['normal']}", f"{found.counts['sick']}", _auroc(found)]]
    for column, of in within.items():
        for name, group in of.groups.items():
            auroc = "–" if group.auroc is None else _with_interval(group.auroc)
            rows.append([f"{column}: {name}", f"{group.normal}", f"{group.sick}", auroc])
    return ReportTable(
        heading="Is it the disease that the score ranks by?",
        sentence=f"AUROC of the score over all images {found.auroc:.2f}, of the group label alone: "
        f"{alone or 'not known'}{warning}. In brackets 95 % intervals by patient.",
        columns=["Images", "Normal", "Sick", "AUROC"],
        rows=rows,
    )


def _auroc(found: Detection) -> str:
    ends = (found.intervals_95_percent or {}).get("auroc")
    return _with_interval(Estimate(found.auroc, *ends)) if ends else f"{found.auroc:.3f}"


def _map_table(found: Localisation) -> ReportTable:
    """The run's own map beside maps that know less."""
    maps = {f"the run's own: {found.map}": found.own, **found.baselines}
    return ReportTable(
        heading="Do the maps show lesions?",
        sentence=f"{found.verdict()} {found.judged_on.capitalize()}, {found.lesion_images} images "
        "with a lesion; in brackets 95 % intervals by patient. A map of another patient has the "
        "prior of the run's own and none of the image's evidence.",
        columns=[
            "Map", "AP of all images", "AP per image", "Pointing game", "Dice (chosen elsewhere)",
        ],
        rows=[[name, *_cells(figures)] for name, figures in maps.items()],
    )  # fmt: skip


def _cells(figures: MapFigures) -> list[str]:
    return [
        f"{figures.average_precision:.3f}",
        _with_interval(figures.average_precision_per_image),
        _with_interval(figures.pointing_game),
        f"{figures.dice:.3f}",
    ]


def _with_interval(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.2f} to {estimate.high:.2f})"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."

"""What ``task=stability`` says: a table and a picture of its measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from vaelab.metrics.bootstrap import Estimate
from vaelab.metrics.verdict import Verdict
from vaelab.report.diagnostic_figures import StabilityRow, stability_figure

NAMES = {
    "aligned_r2": "aligned R² (Procrustes)",
    "linear_cka": "linear CKA",
    "distance_rank_correlation": "rank correlation of distances",
    "neighbour_agreement": "shared neighbours, beyond chance",
    "rescan_icc": "rescans of a subject: ICC",
    "noise_icc": "draws of z of a subject: ICC",
    "same_patient_auroc": "time points of a patient: AUROC",
}
CHANCE = {"same_patient_auroc": 0.5}  # of all others 0


@dataclass(frozen=True)
class Measure:
    """One measure, averaged over pairs of runs or over runs."""

    estimate: Estimate
    each: Mapping[str, float]
    """Of each pair of runs, or each run."""
    threshold: float
    chance: float
    verdict: Verdict


def markdown(result: Mapping[str, Any]) -> str:
    """``stability.md``: the verdict, the measures, the runs."""
    runs = [
        f"| {run['name']} | {run['active_units']} of {run['units']} | {run['mse']:.4g} "
        f"| {run['kl_nats_per_sample']:.4g} |"
        for run in result["runs"]
    ]
    rescan = result["rescan"]
    return "\n".join(
        [
            f"# The latent space is {result['verdict']}",
            "",
            f"{result['sentence']}. A measure is stable "
            "when its whole 95 % interval over patients is at or above the threshold, not stable "
            "when it is below, else undecided; the space is stable when all measures are.",
            "",
            *table(result["measures"]),
            "",
            f"Alignments are fitted on half of the patients and scored on the other half, in "
            f"{min(result['aligned_components'])} to {max(result['aligned_components'])} principal "
            f"components. {result['neighbours']} neighbours are compared, of which chance shares "
            f"{100 * result['neighbour_chance']:.0f} %. A rescan is shifted by a standard "
            f"deviation of {rescan['shift']:g} {rescan['unit']} along each axis and turned by one "
            f"of {rescan['rotation_deg']:g}° about each, with linear interpolation; its gain has "
            f"one of {rescan['gain']:g}, its noise one of {rescan['noise']:g} of the channel's. "
            "The worst pair or run is in the last column: intervals "
            "are over patients and do not know which seeds might have been drawn.",
            "",
            "| run | active units | mean squared error | KL (nats per scan) |",
            "|---|--:|--:|--:|",
            *runs,
            "",
        ]
    )


def table(measures: Mapping[str, Any]) -> list[str]:
    """Lines of a Markdown table of the measures, aligned for reading as text too."""
    width = max(map(len, NAMES.values()))
    header = "| mean | 95 % interval | chance | threshold | verdict    | worst |"
    lines = [
        f"| {'measure':<{width}} {header}",
        f"|{'-' * (width + 2)}|-----:|--------------:|-------:|----------:|------------|------:|",
    ]
    for key, measure in measures.items():
        found = measure["estimate"]
        between = f"{found['low']:.2f} to {found['high']:.2f}"
        lines.append(
            f"| {NAMES[key]:<{width}} | {found['value']:.2f} | {between:>13} "
            f"| {measure['chance']:>6g} | {measure['threshold']:>9g} | {measure['verdict']:<10} "
            f"| {min(measure['each'].values()):>5.2f} |"
        )
    return lines


def figure(result: Mapping[str, Any], measures: Mapping[str, Measure]) -> Figure:
    """The picture of the measures."""
    rows = [
        StabilityRow(
            NAMES[key],
            measure.estimate.value,
            measure.estimate.low,
            measure.estimate.high,
            list(measure.each.values()),
            measure.threshold,
            measure.chance,
            measure.verdict,
        )
        for key, measure in measures.items()
    ]
    runs = ", ".join(run["name"] for run in result["runs"])
    subtitle = f"{result['sentence']}. Runs: {runs}"
    return stability_figure(rows, f"The latent space is {result['verdict']}", subtitle)

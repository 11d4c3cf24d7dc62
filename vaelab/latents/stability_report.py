"""The results of ``task=stability`` as Markdown and as a chart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from vaelab.metrics.bootstrap import Estimate
from vaelab.metrics.verdict import Verdict
from vaelab.report.diagnostic_figures import StabilityRow, stability_figure
from vaelab.report.markdown import table

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
    rescan = result["rescan"]
    runs = [
        (
            run["name"],
            f"{run['active_units']} of {run['units']}",
            f"{run['mse']:.4g}",
            f"{run['kl_nats_per_sample']:.4g}",
        )
        for run in result["runs"]
    ]
    parts = [
        f"# The latent space is {result['verdict']}",
        f"{result['sentence']}. A measure is stable "
        "when its whole 95 % interval over patients is at or above the threshold, not stable "
        "when it is below, else undecided; the space is stable when all measures are.",
        measure_table(result["measures"]),
        f"Alignments are fitted on half of the patients and scored on the other half, in "
        f"{min(result['aligned_components'])} to {max(result['aligned_components'])} principal "
        f"components. {result['neighbours']} neighbours are compared, of which chance shares "
        f"{100 * result['neighbour_chance']:.0f} %. A rescan is shifted by a standard "
        f"deviation of {rescan['shift']:g} {rescan['unit']} along each axis and turned by one "
        f"of {rescan['rotation_deg']:g}° about each, with linear interpolation; its gain has "
        f"one of {rescan['gain']:g}, its noise one of {rescan['noise']:g} of the channel's. "
        "The worst pair or run is in the last column: intervals "
        "are over patients and do not know which seeds might have been drawn.",
        table(["run", "active units", "mean squared error", "KL (nats per scan)"], runs),
    ]
    return "\n\n".join(parts) + "\n"


def measure_table(measures: Mapping[str, Any]) -> str:
    """A Markdown table of the measures."""
    rows = []
    for key, measure in measures.items():
        estimate = measure["estimate"]
        rows.append(
            (
                NAMES[key],
                f"{estimate['value']:.2f}",
                f"{estimate['low']:.2f} to {estimate['high']:.2f}",
                f"{measure['chance']:g}",
                f"{measure['threshold']:g}",
                measure["verdict"],
                f"{min(measure['each'].values()):.2f}",
            )
        )
    head = ["measure", "mean", "95 % interval", "chance", "threshold", "verdict", "worst"]
    return table(head, rows)


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

"""Charts that judge a latent space: its KL in parts, probes of factors, stability over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vaelab.report.axes import legend_above, row_axes
from vaelab.report.canvas import new_figure, wrapped, write, write_title
from vaelab.report.style import BLUE, DASHED, GREEN, INK, MUTED, ORANGE, styled

COLORS: Final = {"stable": GREEN, "not stable": ORANGE, "undecided": MUTED}
LOWEST: Final = -0.5
"""Lower end of the axis of R²; an arrow stands for smaller values."""


@styled
def decomposition_figure(parts: Mapping[str, float]) -> Figure:
    """The three terms of the mean KL in nats, and the upper bound of the first.

    Args:
        parts: ``mutual_information``, ``total_correlation``, ``dimension_wise_kl``,
            ``mutual_information_limit``, all in nats, and ``samples``.
    """
    names = {
        "mutual_information": "mutual information\nof image and latents",
        "total_correlation": "total correlation\nbetween units",
        "dimension_wise_kl": "each unit alone\nagainst its prior",
    }
    nats = np.array([parts[name] for name in names])
    limit = parts["mutual_information_limit"]
    figure = new_figure(6.2, 3.3)
    write_title(figure, f"Three terms of the mean KL of {nats.sum():.3g} nats")
    note = (
        f"dashed: log N, the largest mutual information that N = {parts['samples']:g} images allow"
    )
    write(figure, 0.2, 0.58, note, color=MUTED)
    axes = row_axes(figure, (1.55, 0.85, 4.3, 1.86), list(names.values()), "nats")
    longest = max(limit, nats.max())
    lengths = np.maximum(nats, 0)
    axes.barh(range(3), lengths, 0.5, color=(BLUE, ORANGE, GREEN))
    ends = np.maximum(lengths, (limit, 0, 0)) + 0.015 * longest
    for row, (end, value) in enumerate(zip(ends, nats, strict=True)):
        axes.text(end, row, f"{value:.3g}", va="center", fontsize=8.5)
    axes.vlines(limit, -0.4, 0.4, color=INK, linewidth=1.2, linestyle=DASHED)
    axes.set_xlim(0, 1.12 * longest or 1)
    return figure


@styled
def probe_figure(probes: Mapping[str, Any]) -> Figure:
    """R² of each factor from mu and from principal components of the voxels, with intervals.

    Discs are of linear probes, rings of kernel ridge regression, without their intervals; a diamond
    is what the volume alone tells of a factor.

    Args:
        probes: ``r2``: factor → ``latents``, ``voxels``, each ``value``, ``low`` and ``high``,
            ``latents_nonlinear``, ``voxels_nonlinear`` and ``volume`` (or None);
            ``subjects``, ``patients``, ``latent_units``, ``voxel_components_at_most``.
    """
    factors = probes["r2"]
    figure = new_figure(7.0, 1.58 + 0.6 * len(factors))
    scans = f"{probes['subjects']} scans of {probes['patients']} patients"
    write_title(figure, f"Probes across patients: {scans}")
    x = "R² with 95 % interval over patients (0: no better than the mean)"
    axes = row_axes(figure, (1.75, 0.98, 4.9, 0.6 * len(factors)), list(factors), x)
    components = probes["voxel_components_at_most"]
    kinds = (
        ("latents", BLUE, -0.13, f"mu, {probes['latent_units']} units"),
        ("voxels", MUTED, 0.13, f"voxels, at most {components} principal components"),
    )
    axes.axvline(0, color=INK, linewidth=0.8)
    for kind, color, offset, label in kinds:
        for row, factor in enumerate(factors.values()):
            estimate = factor[kind]
            _interval(axes, row + offset, estimate["low"], estimate["high"], color, 2.2)
            _mark(axes, row + offset, estimate["value"], color)
            _ring(axes, row + offset, factor[f"{kind}_nonlinear"]["value"], color)
        axes.plot([], [], "o-", color=color, label=label)
    axes.scatter([], [], 60, facecolors="none", edgecolors=INK, label="by kernel ridge")
    of_volume = [(row, factor["volume"]) for row, factor in enumerate(factors.values())]
    rows = [(max(found["value"], LOWEST), row) for row, found in of_volume if found]
    if rows:
        x, y = np.transpose(rows)
        axes.scatter(x, y, s=22, c=ORANGE, marker="D", zorder=3, label="volume alone")
    legend_above(axes, ncols=2)
    axes.set_xlim(LOWEST - 0.03, 1.03)
    return figure


def _ring(axes: Axes, row: float, value: float, color: str) -> None:
    axes.scatter(max(value, LOWEST), row, 60, facecolors="none", edgecolors=color, zorder=3)


@dataclass(frozen=True)
class StabilityRow:
    """A measure of stability, on a scale where 1 is perfect."""

    name: str
    value: float
    low: float
    high: float
    values: Sequence[float]
    """Of each pair of runs, or of each run."""
    threshold: float
    chance: float
    verdict: str


@styled
def stability_figure(rows: Sequence[StabilityRow], title: str, subtitle: str) -> Figure:
    """Every measure with its interval, threshold and chance level, coloured by the verdict."""
    lines = wrapped(subtitle, 9.2, 8).split("\n")[:2]  # wider than the figure: narrow letters
    top, height = 0.9 + 0.15 * len(lines), 0.55 * len(rows)
    figure = new_figure(8.4, top + height + 0.6)
    write_title(figure, title)
    write(figure, 0.2, 0.46, "\n".join(lines), color=MUTED, va="top")
    x = "1: the same space, or the same place"
    axes = row_axes(figure, (2.6, top, 4.65, height), [row.name for row in rows], x)
    for place, row in enumerate(rows):
        color = COLORS[row.verdict]
        _interval(axes, place, row.low, row.high, color, 5)
        axes.plot(
            np.maximum(row.values, LOWEST), [place] * len(row.values), "|", color=color,
            markersize=9,
        )  # fmt: skip
        _mark(axes, place, row.value, color)
        for at, style in ((row.threshold, "-"), (row.chance, ":")):
            axes.vlines(at, place - 0.36, place + 0.36, color=INK, linestyle=style, linewidth=1.3)
        beside = axes.get_yaxis_transform()
        axes.text(1.03, place, row.verdict, transform=beside, va="center", fontsize=8.5,
                  color=color, fontweight="bold")  # fmt: skip
    axes.plot([], [], "o-", color=MUTED, label="mean, 95 % interval")
    axes.plot([], [], "|", color=MUTED, label="each pair or run", markersize=8)
    axes.plot([], [], "-", color=INK, label="threshold")
    axes.plot([], [], ":", color=INK, label="chance")
    legend_above(axes)
    lowest = min(0.0, *(min(row.low, *row.values, row.chance) for row in rows))
    axes.set_xlim(max(lowest, LOWEST) - 0.04, 1.03)
    return figure


def _interval(axes: Axes, row: float, low: float, high: float, color: str, width: float) -> None:
    ends = max(low, LOWEST), max(high, LOWEST)
    axes.plot(ends, [row, row], color=color, linewidth=width, alpha=0.4)


def _mark(axes: Axes, row: float, value: float, color: str) -> None:
    """A point, or an arrow at the end of the axis for a value beyond it."""
    marker = "<" if value < LOWEST else "o"
    axes.plot(max(value, LOWEST), row, marker, color=color, markersize=6, zorder=3)

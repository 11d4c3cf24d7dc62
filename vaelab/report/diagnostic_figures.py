"""Pictures of what a latent space is worth: its KL in parts, its factors, its stability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vaelab.report.canvas import (
    BLUE,
    FONT,
    GREEN,
    GRID,
    INK,
    MUTED,
    ORANGE,
    TEXT,
    new_figure,
    place,
    printable,
    wrapped,
    write,
)

ROW = 0.46  # inches
COLORS: Final = {"stable": GREEN, "not stable": ORANGE, "undecided": MUTED}
LOWEST = -0.5  # an R² far below zero only says that there is none; an arrow stands for less


def decomposition_figure(parts: Mapping[str, float]) -> Figure:
    """The three terms of the mean KL in nats, and the most that the first can be.

    Args:
        parts: ``mutual_information``, ``total_correlation``, ``dimension_wise_kl``,
            ``mutual_information_limit``, all in nats, and ``samples``.
    """
    names = {
        "mutual_information": "mutual information\nof image and latents",
        "total_correlation": "total correlation\nbetween units",
        "dimension_wise_kl": "each unit alone\nagainst its prior",
    }
    total = sum(parts[name] for name in names)
    title = f"Where the KL of {total:.3g} nats goes"
    figure, axes = _rows(6.2, title, list(names.values()), row=0.62, left=1.55, top=0.85)
    limit = parts["mutual_information_limit"]
    highest = max(limit, *(parts[name] for name in names))
    for row, (name, color) in enumerate(zip(names, (BLUE, ORANGE, GREEN), strict=True)):
        axes.barh(row, max(parts[name], 0), height=0.5, color=color, linewidth=0)
        at = max(parts[name], 0) + 0.015 * highest
        if name == "mutual_information":
            at = max(at, limit + 0.015 * highest)
        axes.text(at, row, f"{parts[name]:.3g}", va="center", fontsize=8.5, color=INK, **TEXT)
    axes.plot([limit, limit], [-0.4, 0.4], color=INK, linewidth=1.2, linestyle=(0, (2, 1)))
    reach = f"dashed: log N, the most that N = {parts['samples']:g} images can tell"
    write(figure, 1.55, 0.62, reach, fontsize=8, color=MUTED)
    axes.set_xlim(0, 1.12 * highest or 1)
    axes.set_xlabel("nats", fontsize=8.5, color=INK, labelpad=4, **TEXT)
    return figure


def probe_figure(probes: Mapping[str, Any]) -> Figure:
    """R² of each factor from mu and from principal components of the voxels, with intervals.

    Args:
        probes: ``r2``: factor → ``latents``, ``voxels``, each ``value``, ``low`` and ``high``;
            ``subjects``, ``patients``, ``latent_units``, ``voxel_components_at_most``.
    """
    found = probes["r2"]
    title = (
        f"Linear probes of {probes['subjects']} scans of {probes['patients']} patients, "
        "across patients"
    )
    names = [printable(name, 24) for name in found]
    figure, axes = _rows(7.0, title, names, row=0.6, left=1.75, top=0.98)
    units, components = probes["latent_units"], probes["voxel_components_at_most"]
    kinds = (
        ("latents", BLUE, -0.13, f"mu, {units} units"),
        ("voxels", MUTED, 0.13, f"voxels, {components} principal components at most"),
    )
    axes.axvline(0, color=INK, linewidth=0.8)
    for kind, color, offset, label in kinds:
        for row, factor in enumerate(found.values()):
            low, value, high = (max(factor[kind][k], LOWEST) for k in ("low", "value", "high"))
            axes.plot([low, high], [row + offset] * 2, color=color, linewidth=2.2, alpha=0.55)
            axes.plot(
                value, row + offset, _marker(factor[kind]["value"]), color=color, markersize=6
            )
        axes.plot([], [], "o-", color=color, label=label, markersize=6)
    _legend(axes)
    axes.set_xlim(LOWEST - 0.03, 1.03)
    label = "R² with 95 % interval over patients (0: no better than the mean)"
    axes.set_xlabel(label, fontsize=8.5, color=INK, labelpad=4, **TEXT)
    return figure


@dataclass(frozen=True)
class StabilityRow:
    """One measure of stability, ready to be drawn; all on a scale where 1 is perfect."""

    name: str
    value: float
    low: float
    high: float
    each: Sequence[float]
    """Of each pair of runs, or each run."""
    threshold: float
    chance: float
    verdict: str


def stability_figure(rows: Sequence[StabilityRow], title: str, subtitle: str) -> Figure:
    """Every measure with its interval against its threshold and chance, coloured by the verdict."""
    names = [row.name for row in rows]
    lines = wrapped(subtitle, 9.2, 8).split("\n")[:2]  # its letters are narrower than most
    top = 0.9 + 0.15 * len(lines)
    figure, axes = _rows(8.4, title, names, row=0.55, left=2.6, right=1.15, top=top)
    write(figure, 0.2, 0.46, "\n".join(lines), fontsize=8, color=MUTED, va="top")
    for place_, row in enumerate(rows):
        color = COLORS[row.verdict]
        shown = [max(value, LOWEST) for value in (row.low, row.value, row.high)]
        axes.plot([shown[0], shown[2]], [place_] * 2, color=color, linewidth=5, alpha=0.35)
        axes.plot(
            [max(value, LOWEST) for value in row.each],
            [place_] * len(row.each),
            "|", color=color, markersize=9, markeredgewidth=1.1,
        )  # fmt: skip
        axes.plot(shown[1], place_, _marker(row.value), color=color, markersize=7, zorder=3)
        for at, style in ((row.threshold, "-"), (row.chance, (0, (1, 1)))):
            axes.plot([at, at], [place_ - 0.36, place_ + 0.36], color=INK, ls=style, lw=1.3)
        axes.text(
            1.03, place_, row.verdict, transform=axes.get_yaxis_transform(), va="center",
            fontsize=8.5, color=color, fontweight="bold", **TEXT,
        )  # fmt: skip
    axes.plot([], [], "o-", color=MUTED, label="mean, 95 % interval", markersize=6)
    axes.plot([], [], "|", color=MUTED, label="each pair or run", markersize=8)
    axes.plot([], [], "-", color=INK, label="threshold")
    axes.plot([], [], ":", color=INK, label="chance")
    _legend(axes)
    lowest = min(0.0, *(min(row.low, *row.each, row.chance) for row in rows))
    axes.set_xlim(max(lowest, LOWEST) - 0.04, 1.03)
    axes.set_xlabel("1: the same space, or the same place", fontsize=8.5, color=INK, **TEXT)
    return figure


def _marker(value: float) -> str:
    """A point, or an arrow to where it would be, beyond the axis."""
    return "<" if value < LOWEST else "o"


def _rows(
    width: float,
    title: str,
    names: Sequence[str],
    row: float,
    left: float,
    top: float,
    right: float = 0.35,
) -> tuple[Figure, Axes]:
    """A chart of one row per name, the first on top."""
    height = top + row * len(names) + 0.6
    figure = new_figure(width, height, "white")
    heading = wrapped(title, width - 0.4, 10.5)
    write(figure, 0.2, 0.16, heading, fontsize=10.5, color=INK, va="top")
    axes = place(figure, left, top, width - left - right, row * len(names))
    axes.set_axisbelow(True)
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.set_yticks(range(len(names)), list(names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(labelsize=8.5, labelcolor=INK, color=MUTED, length=0, labelfontfamily=FONT)
    axes.tick_params(axis="x", length=3, labelsize=8)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    return figure, axes


def _legend(axes: Axes) -> None:
    legend = axes.legend(
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=4,
        frameon=False,
        handlelength=1.4,
        columnspacing=1.4,
        borderaxespad=0.2,
        labelcolor=INK,
        prop={"family": FONT, "size": 8},
    )
    for text in legend.get_texts():
        text.set_parse_math(False)

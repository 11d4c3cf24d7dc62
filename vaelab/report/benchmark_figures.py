"""A benchmark as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from vaelab.report.benchmark_text import READS
from vaelab.report.canvas import (
    BLUE,
    GREEN,
    GRID,
    INK,
    MUTED,
    ORANGE,
    new_figure,
    number,
    place,
    printable,
    write,
)

ROW = 0.3
"""Inches of one bar with its name."""
NAMES = {"vaelab": BLUE, "monai": ORANGE}


def benchmark_figure(result: Mapping[str, Any]) -> Figure:
    """Steps of all variants beside MONAI's, the way of the data, and an epoch's parts.

    Args:
        result: content of ``benchmark.json``.
    """
    steps = result["steps"]["variants"]
    bars = [
        (f"{variant}  {name}", found[name]["train"], NAMES[name])
        for variant, found in steps.items()
        for name in NAMES
        if name in found
    ]
    height = len(bars) * ROW
    figure = new_figure(9.2, height + 4.5, "white")
    machine = result["machine"]
    batch = "×".join(map(str, result["batch"]))
    _say(figure, 0.25, 0.3, f"{result['model']}, batch {batch}", 12)
    cores = f"{machine['threads']} of {machine['cores']} cores"
    where = f"{machine['device']} · {machine['cpu']} · {cores}"
    _say(figure, 0.25, 0.52, f"{where} · torch {machine['torch']} · {machine['date']}", 8, MUTED)

    axes = place(figure, 2.3, 1.0, 6.0, height)
    _bars(axes, "Training step, s", bars)
    top = 1.0 + height + 0.95
    data = result["data"]["preprocessing"]["cases_per_second"]
    colors = {"vaelab": BLUE, "plain_monai": ORANGE, "reading": MUTED}
    speeds = [
        (name.replace("_", " "), {"median": data[name], "sd": 0.0}, colors[name])
        for name in colors
        if name in data
    ]
    _bars(place(figure, 1.25, top, 2.6, 3 * ROW), "From raw files, cases/s", speeds)
    if "cache" in result["data"]:
        reads = result["data"]["cache"]["gigabytes_per_second"]
        speeds = [
            (READS[name], {"median": reads[name], "sd": 0.0}, MUTED if name == "plain" else BLUE)
            for name in reads
        ]
        _bars(place(figure, 6.0, top, 2.3, len(speeds) * ROW), "Samples, GB/s", speeds)
    _parts(place(figure, 1.25, top + 3 * ROW + 0.75, 7.05, 0.28), result["epoch"])
    return figure


def _bars(axes: Axes, title: str, rows: Sequence[tuple[str, Mapping[str, float], str]]) -> None:
    longest = max(value["median"] + value["sd"] for _, value, _ in rows)
    for place_, (name, value, color) in enumerate(rows):
        axes.barh(place_, value["median"], 0.68, color=color, xerr=value["sd"] or None, ecolor=INK)
        end = value["median"] + value["sd"] + 0.015 * longest
        axes.text(end, place_, number(value["median"], ".3g"), va="center", fontsize=8, color=INK)
        axes.text(
            -0.015 * longest, place_, printable(name, 40), ha="right", va="center", fontsize=8,
            color=INK, parse_math=False,
        )  # fmt: skip
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlim=(0, 1.12 * longest), yticks=[])
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_title(title, loc="left", fontsize=9.5, color=INK, pad=5)
    _quiet(axes)


def _parts(axes: Axes, epoch: Mapping[str, float]) -> None:
    parts = {
        "steps": (epoch["training_steps"], BLUE),
        "waiting for data": (epoch["waiting_for_data"], ORANGE),
        "rest": (epoch["rest"], GREEN),
    }
    left = 0.0
    for share, color in parts.values():
        axes.barh(0, share, 1.0, left=left, color=color)
        left += share
    axes.set(xlim=(0, 1), ylim=(-0.5, 0.5), yticks=[])
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_title("Where the time of a training epoch goes", loc="left", fontsize=9.5, color=INK)
    # Below the scale, one beside the other: a share may be too small to be written on.
    for column, (name, (share, color)) in enumerate(parts.items()):
        axes.text(
            0.24 * column, -1.45, f"{name} {share:.1%}", transform=axes.transAxes,
            fontsize=8, color=color, ha="left",
        )  # fmt: skip
    _quiet(axes)


def _quiet(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axes.tick_params(labelsize=8, labelcolor=INK, length=0)


def _say(figure: Figure, left: float, top: float, text: str, size: float, color: str = INK) -> None:
    write(figure, left, top, printable(text, 120), fontsize=size, color=color)

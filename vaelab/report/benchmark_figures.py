"""The chart of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from vaelab.report.axes import chart_axes, row_axes
from vaelab.report.benchmark_text import READS
from vaelab.report.canvas import drawable, new_figure, write, write_title
from vaelab.report.style import BLUE, GREEN, INK, MUTED, ORANGE, styled
from vaelab.text import number

ROW = 0.3
"""Inches of one bar with its name."""
NAMES = {"vaelab": BLUE, "monai": ORANGE}


@styled
def benchmark_figure(result: Mapping[str, Any]) -> Figure:
    """Training steps of all variants beside MONAI's, reading of data, and parts of an epoch.

    Args:
        result: content of ``benchmark.json``.
    """
    bars = [
        (f"{variant}  {name}", timings[name]["train"], NAMES[name])
        for variant, timings in result["steps"]["variants"].items()
        for name in NAMES
        if name in timings
    ]
    height = len(bars) * ROW
    figure = new_figure(9.2, height + 4.5)
    machine = result["machine"]
    write_title(figure, f"{result['model']}, batch {'×'.join(map(str, result['batch']))}", 12)
    cores = f"{machine['threads']} of {machine['cores']} cores"
    where = f"{machine['device']} · {machine['cpu']} · {cores}"
    setting = drawable(f"{where} · torch {machine['torch']} · {machine['date']}", 120)
    write(figure, 0.2, 0.54, setting, color=MUTED)
    _draw_bars(figure, (2.3, 1.0, 6.0), "Training step, s", bars)

    top = 1.0 + height + 0.95
    data = result["data"]["preprocessing"]["cases_per_second"]
    colors = {"vaelab": BLUE, "plain_monai": ORANGE, "reading": MUTED}
    speeds = [
        (name.replace("_", " "), {"median": data[name], "sd": 0.0}, color)
        for name, color in colors.items()
        if name in data
    ]
    _draw_bars(figure, (1.25, top, 2.6), "From raw files, scans/s", speeds)
    if "cache" in result["data"]:
        reads = result["data"]["cache"]["gigabytes_per_second"]
        speeds = [
            (READS[name], {"median": speed, "sd": 0.0}, MUTED if name == "plain" else BLUE)
            for name, speed in reads.items()
        ]
        _draw_bars(figure, (6.0, top, 2.3), "Samples, GB/s", speeds)
    _draw_shares(figure, (1.25, top + 3 * ROW + 0.75, 7.05, 0.28), result["epoch"])
    return figure


def _draw_bars(
    figure: Figure,
    corner: tuple[float, float, float],
    title: str,
    rows: Sequence[tuple[str, Mapping[str, float], str]],
) -> None:
    """Bars with names and values; ``corner`` is left, top and width in inches."""
    axes = row_axes(figure, (*corner, len(rows) * ROW), [name for name, _, _ in rows], "")
    longest = max(value["median"] + value["sd"] for _, value, _ in rows)
    for row, (_, value, color) in enumerate(rows):
        axes.barh(row, value["median"], 0.68, color=color, xerr=value["sd"] or None, ecolor=INK)
        end = value["median"] + value["sd"] + 0.015 * longest
        axes.text(end, row, number(value["median"], ".3g"), va="center")
    axes.set(xlim=(0, 1.12 * longest), title=title)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    _without_baseline(axes)


def _draw_shares(
    figure: Figure, inches: tuple[float, float, float, float], epoch: Mapping[str, float]
) -> None:
    axes = chart_axes(figure, inches, "Shares of the time of a training epoch", grid="x")
    parts = {
        "steps": (epoch["training_steps"], BLUE),
        "waiting for data": (epoch["waiting_for_data"], ORANGE),
        "rest": (epoch["rest"], GREEN),
    }
    left = 0.0
    # Names below the scale, side by side: a share may be too small for its name.
    for column, (name, (share, color)) in enumerate(parts.items()):
        axes.barh(0, share, 1.0, left=left, color=color)
        left += share
        below = f"{name} {share:.1%}"
        axes.text(0.24 * column, -1.45, below, transform=axes.transAxes, color=color)
    axes.set(xlim=(0, 1), ylim=(-0.5, 0.5), yticks=[])
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _without_baseline(axes)


def _without_baseline(axes: Axes) -> None:
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="x", length=0)

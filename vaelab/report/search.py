"""The picture of a hyperparameter search: how it went, and what mattered."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import seaborn as sns  # type: ignore[import-untyped, unused-ignore]
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vaelab.report.canvas import (
    BLUE,
    FONT,
    GRID,
    INK,
    MUTED,
    ORANGE,
    new_figure,
    place,
    printable,
    write,
)

MOST_BARS: Final = 10


def search_figure(
    values: Mapping[int, float],
    failed: Sequence[int],
    importances: Mapping[str, float],
    monitor: str,
) -> Figure:
    """Value of each trial with the best so far, beside the importance of each parameter.

    Args:
        values: trial → what it reached; smaller is better.
        failed: trials without a value, marked on the axis.
        importances: parameter → share in [0, 1]; empty leaves the panel out.
        monitor: what the value is.
    """
    figure = new_figure(10.4 if importances else 6.2, 3.9, "white")
    write(figure, 0.2, 0.3, "Hyperparameter search", fontsize=12, color=INK)
    axes = place(figure, 0.95, 0.85, 4.9, 2.4)
    _quiet(axes, "y")
    trials = sorted(values)
    reached = [values[trial] for trial in trials]
    best = np.minimum.accumulate(np.asarray(reached, float))
    axes.step(trials, best, where="post", color=ORANGE, linewidth=1.6, label="best so far")
    axes.plot(trials, reached, "o", color=BLUE, markersize=5, label="trial")
    if failed:
        floor = axes.get_xaxis_transform()
        axes.plot(failed, [0.03] * len(failed), "x", color=MUTED, transform=floor, label="failed")
    axes.ticklabel_format(axis="y", useOffset=False)
    if reached and min(reached) > 0 and max(reached) > 20 * min(reached):
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.set_xlabel("trial", fontsize=8.5, color=INK, fontfamily=FONT)
    axes.set_ylabel(printable(monitor, 40), fontsize=8.5, color=INK, fontfamily=FONT)
    axes.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False,
        prop={"family": FONT, "size": 8}, borderaxespad=0.2,
    )  # fmt: skip
    if importances:
        _importances(figure, importances)
    return figure


def _importances(figure: Figure, importances: Mapping[str, float]) -> None:
    shown = sorted(importances.items(), key=lambda item: item[1])[-MOST_BARS:]
    axes = place(figure, 7.9, 0.85, 2.2, 2.4)
    _quiet(axes, "x")
    names = [printable(name, 24) for name, _ in shown]
    axes.barh(range(len(shown)), [share for _, share in shown], color=BLUE, height=0.55)
    axes.set_yticks(range(len(shown)), names)
    axes.set(xlim=(0, 1), ylim=(-0.6, max(len(shown), 3) - 0.4))
    axes.set_title("Importance (PED-ANOVA)", loc="left", fontsize=9.5, color=INK, pad=5)
    axes.set_xlabel("share", fontsize=8.5, color=INK, fontfamily=FONT)


def _quiet(axes: Axes, grid: str) -> None:
    axes.set_axisbelow(True)
    axes.grid(axis="x" if grid == "x" else "y", color=GRID, linewidth=0.7)
    sns.despine(ax=axes, left=True)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(labelsize=8, labelcolor=INK, color=MUTED, length=0, labelfontfamily=FONT)

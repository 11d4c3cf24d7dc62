"""What an epoch costs as things grow, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator, ScalarFormatter

from vaelab.report.canvas import BLUE, GRID, INK, MUTED, new_figure, place, write


def growth_figure(result: Mapping[str, Any]) -> Figure:
    """Seconds of an epoch over cases, voxels and workers, and memory over epochs.

    Args:
        result: content of ``growth.json``.
    """
    figure = new_figure(9.2, 6.5, "white")
    write(figure, 0.25, 0.3, "What an epoch costs", fontsize=12, color=INK)
    write(
        figure, 0.25, 0.52, "dots: measured, once the cache is filled; grey: proportional to the "
        "largest", fontsize=8, color=MUTED,
    )  # fmt: skip
    panels = [
        place(figure, 0.85 + 4.5 * (i % 2), 1.0 + 2.85 * (i // 2), 3.5, 2.0) for i in range(4)
    ]
    cases = {int(key): value for key, value in result["cases"].items()}
    sides = {int(key): value for key, value in result["roi_sizes"].items()}
    _scaling(panels[0], cases, 1, "training samples")
    _scaling(panels[1], sides, 3, "side of the volume, voxels")
    workers = result["workers"]
    panels[2].bar(range(len(workers)), list(workers.values()), 0.6, color=BLUE)
    panels[2].set_xticks(range(len(workers)), list(workers))
    _label(panels[2], "loader processes", "seconds per epoch")
    memory = result["memory_mib"]
    panels[3].plot(np.arange(1, len(memory) + 1), memory, color=BLUE, linewidth=1.6)
    panels[3].set_ylim(0, 1.25 * max(memory))
    slope = result["memory_mib_per_epoch"]
    _label(panels[3], "epoch", "resident memory, MiB", f"{slope:+.3f} MiB per epoch")
    return figure


def _scaling(axes: Axes, seconds: Mapping[int, float], power: int, name: str) -> None:
    sizes = np.array(list(seconds), float)
    values = np.array(list(seconds.values()))
    linear = values[-1] * (sizes / sizes[-1]) ** power
    axes.plot(sizes, linear, color=MUTED, linewidth=1.2, linestyle=(0, (4, 2)))
    axes.plot(sizes, values, "o-", color=BLUE, linewidth=1.6, markersize=4)
    axes.set(xscale="log", yscale="log")
    for size, value in zip(sizes, values, strict=True):
        first = size == sizes[0]  # has the axis to its left
        axes.annotate(
            f"{value:.3g} s", (size, value), (7, -8) if first else (0, 6), color=INK,
            textcoords="offset points", ha="left" if first else "right", fontsize=8,
        )  # fmt: skip
    axes.set_xticks(sizes)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
    _label(axes, name, "seconds per epoch")


def _label(axes: Axes, x: str, y: str, title: str = "") -> None:
    axes.set_xlabel(x, fontsize=8.5, color=INK)
    axes.set_ylabel(y, fontsize=8.5, color=INK)
    axes.set_title(title, loc="left", fontsize=9, color=INK)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(which="both", labelsize=8, labelcolor=INK, color=MUTED, length=0)

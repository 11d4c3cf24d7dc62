"""The chart of time and memory of an epoch over the size of the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from vaelab.report.axes import chart_axes, short
from vaelab.report.canvas import new_figure, write, write_title
from vaelab.report.style import BLUE, DASHED, INK, MUTED, styled


@styled
def growth_figure(result: Mapping[str, Any]) -> Figure:
    """Seconds of an epoch over samples, voxels and workers, and memory over epochs.

    Args:
        result: content of ``growth.json``.
    """
    figure = new_figure(9.2, 6.5)
    write_title(figure, "Time and memory of an epoch", 12)
    note = "dots: measured once the cache is filled; grey: in proportion to the largest"
    write(figure, 0.2, 0.52, note, color=MUTED)
    slope = result["memory_mib_per_epoch"]
    labels = (
        ("", "training samples", "seconds per epoch"),
        ("", "side of the volume, voxels", "seconds per epoch"),
        ("", "loader processes", "seconds per epoch"),
        (f"{slope:+.3f} MiB per epoch", "epoch", "resident memory, MiB"),
    )
    samples, sides, workers, memory = (
        chart_axes(figure, (0.85 + 4.5 * (i % 2), 1.0 + 2.85 * (i // 2), 3.5, 2.0), *text)
        for i, text in enumerate(labels)
    )
    _draw_scaling(samples, {int(n): value for n, value in result["cases"].items()}, 1)
    _draw_scaling(sides, {int(n): value for n, value in result["roi_sizes"].items()}, 3)
    workers.bar(list(result["workers"]), list(result["workers"].values()), 0.6, color=BLUE)
    mebibytes = result["memory_mib"]
    memory.plot(np.arange(1, len(mebibytes) + 1), mebibytes, color=BLUE)
    memory.set_ylim(0, 1.25 * max(mebibytes))
    return figure


def _draw_scaling(axes: Axes, seconds: Mapping[int, float], power: int) -> None:
    sizes = np.array(list(seconds), float)
    values = np.array(list(seconds.values()))
    axes.plot(sizes, values[-1] * (sizes / sizes[-1]) ** power, color=MUTED, linestyle=DASHED)
    axes.plot(sizes, values, "o-", color=BLUE)
    axes.set(xscale="log", yscale="log")
    for size, value in zip(sizes, values, strict=True):
        first = size == sizes[0]  # has the axis to its left
        axes.annotate(
            f"{value:.3g} s", (size, value), (7, -8) if first else (0, 6),
            textcoords="offset points", ha="left" if first else "right", color=INK,
        )  # fmt: skip
    axes.margins(y=0.15)
    axes.set_xticks(sizes)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))

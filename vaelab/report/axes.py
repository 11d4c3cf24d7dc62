"""Axes of charts: their place, labels and scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from vaelab.report.canvas import Array, drawable, new_figure, place, write_title
from vaelab.report.style import GRID, INK, MUTED

WIDE: Final = 20.0
"""Ratio of largest to smallest value from which an axis is logarithmic."""
LETTERS_PER_INCH: Final = 14  # at 8 points, wide letters included


def chart_axes(
    figure: Figure,
    inches: tuple[float, float, float, float],
    title: str = "",
    x: str = "",
    y: str = "",
    grid: Literal["x", "y", "both"] = "y",
) -> Axes:
    """Axes of a chart.

    Args:
        figure: the axes are added to it.
        inches: left, top, width and height, from the upper left corner of ``figure``.
        title, x, y: above, below and left of the axes, literally.
        grid: the direction whose values have lines.
    """
    axes = place(figure, *inches)
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(axis=grid, color=GRID, linewidth=0.7)
    # Ticks are created when they are drawn, outside the style sheet.
    axes.tick_params(which="both", labelsize=8, labelcolor=INK, color=MUTED, length=0)
    axes.tick_params(axis="x", length=3)
    return axes


def single_chart(width: float, height: float, title: str, x: str, y: str) -> tuple[Figure, Axes]:
    """A figure of a single chart under its title; sizes in inches."""
    figure = new_figure(width, height)
    top = write_title(figure, title) + 0.2
    inches = (0.78, top, width - 0.78 - 0.25, height - top - 0.58)
    return figure, chart_axes(figure, inches, x=x, y=y)


def row_axes(
    figure: Figure, inches: tuple[float, float, float, float], names: Sequence[str], x: str
) -> Axes:
    """A chart with a row for each name, the first on top."""
    axes = chart_axes(figure, inches, x=x, grid="x")
    limit = int(LETTERS_PER_INCH * inches[0])
    labels = ["\n".join(drawable(line, limit) for line in name.split("\n")) for name in names]
    axes.set_yticks(range(len(names)), labels)
    axes.set_ylim(len(names) - 0.5, -0.5)
    return axes


def legend_above(axes: Axes, **style: Any) -> None:
    """A legend above the axes, at their right end."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), **({"ncols": 4} | style))


def finite(values: npt.ArrayLike) -> Array:
    """The values that are neither NaN nor infinite."""
    numbers = np.asarray(values, float)
    result: Array = numbers[np.isfinite(numbers)]
    return result


def is_wide(values: npt.ArrayLike) -> bool:
    """Whether values are all positive and too far apart for a linear axis."""
    known = finite(values)
    return bool(known.size and known.min() > 0 and known.max() > WIDE * known.min())


def scale_axis(axes: Axes, which: Literal["x", "y"], values: npt.ArrayLike) -> None:
    """Make an axis logarithmic where ``values`` are wide; else linear, from 0 where that is near.

    NaN and infinities are ignored.
    """
    known = finite(values)
    axis: Axis = axes.xaxis if which == "x" else axes.yaxis
    if is_wide(known):
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        ratio = known.max() / known.min()
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if ratio < 1e2 else (1,)))
        axis.set_minor_formatter(NullFormatter())
    elif known.size and 0 <= known.min() < 0.5 * known.max():
        axes.set_xlim(left=0) if which == "x" else axes.set_ylim(bottom=0)
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def short(value: float) -> str:
    """A number for a tick: 0.01, 2500, 30k, 1.5M."""
    return EngFormatter(sep="")(value) if abs(value) >= 1e4 else f"{value:g}"


def count_axis(axis: Axis) -> None:
    """Whole numbers from the first to the last: epochs, trials, units."""
    axis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))


def bare_bar(bar: Colorbar) -> None:
    """A colour bar without outline and with small ticks."""
    bar.minorticks_off()
    bar.outline.set_visible(False)
    bar.ax.tick_params(which="both", labelsize=7, labelcolor=INK, color=MUTED, length=2)

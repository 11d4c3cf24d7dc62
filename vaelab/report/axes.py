"""Axes of charts: where they lie, what they say, which scale they have."""

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

from vaelab.report.canvas import drawable, new_figure, place, write_title
from vaelab.report.style import GRID, INK, MUTED

WIDE: Final = 20.0
"""Largest over smallest value from which an axis is logarithmic."""
LETTERS_PER_INCH: Final = 14  # of names of 8 points, wide letters included


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
        figure: what they are added to.
        inches: left, top, width and height, from the upper left corner of ``figure``.
        title, x, y: above, below and left of the axes, literally.
        grid: the values that have lines.
    """
    axes = place(figure, *inches)
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(axis=grid, color=GRID, linewidth=0.7)
    # Ticks are made when they are drawn, outside the style sheet: theirs is said here.
    axes.tick_params(which="both", labelsize=8, labelcolor=INK, color=MUTED, length=0)
    axes.tick_params(axis="x", length=3)
    return axes


def single_chart(width: float, height: float, title: str, x: str, y: str) -> tuple[Figure, Axes]:
    """A figure of one chart under its title, in inches."""
    figure = new_figure(width, height)
    top = write_title(figure, title) + 0.2
    inches = (0.78, top, width - 0.78 - 0.25, height - top - 0.58)
    return figure, chart_axes(figure, inches, x=x, y=y)


def row_axes(
    figure: Figure, inches: tuple[float, float, float, float], names: Sequence[str], x: str
) -> Axes:
    """A chart of one row for each name, the first on top."""
    axes = chart_axes(figure, inches, x=x, grid="x")
    limit = int(LETTERS_PER_INCH * inches[0])
    shown = ["\n".join(drawable(line, limit) for line in name.split("\n")) for name in names]
    axes.set_yticks(range(len(names)), shown)
    axes.set_ylim(len(names) - 0.5, -0.5)
    return axes


def legend_above(axes: Axes, **style: Any) -> None:
    """Names of what is drawn, on the upper edge of the axes."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), **({"ncols": 4} | style))


def is_wide(values: npt.ArrayLike) -> bool:
    """All positive, and too far apart for a linear axis?"""
    held = np.asarray(values, float)
    held = held[np.isfinite(held)]
    return bool(held.size and held.min() > 0 and held.max() > WIDE * held.min())


def scale_axis(axes: Axes, which: Literal["x", "y"], values: npt.ArrayLike) -> None:
    """Logarithmic where ``values`` are wide; else linear, from 0 where that is near.

    NaN and infinities count for nothing.
    """
    held = np.asarray(values, float)
    held = held[np.isfinite(held)]
    axis: Axis = axes.xaxis if which == "x" else axes.yaxis
    if is_wide(held):
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        decades = held.max() / held.min()
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 1e2 else (1,)))
        axis.set_minor_formatter(NullFormatter())
    elif held.size and 0 <= held.min() < 0.5 * held.max():
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

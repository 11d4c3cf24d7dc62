"""Pictures of a latent space: where subjects lie, where they move, what its units do.

Pure functions, arrays in and a ``Figure`` out, in the manner of ``vaelab.report.charts``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator

from vaelab.report.canvas import (
    DARK,
    FONT,
    GRID,
    INK,
    LIGHT,
    MUTED,
    Array,
    heat_bar,
    name_row,
    new_figure,
    place,
    printable,
    show,
    wrapped,
    write,
)
from vaelab.report.slices import grey_window

# Okabe & Ito 2008: told apart by colour-blind readers too.
CATEGORIES: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999")
SEQUENTIAL: Final = colormaps["viridis"]
MOST_STEPS: Final = 6  # whole numbers up to which each has a colour of its own
LARGE_RATIO: Final = 10  # of largest to smallest from which colours are logarithmic


class Coloring(NamedTuple):
    """What the colour of a panel's points means."""

    name: str
    """Stands above, with its unit."""
    values: Array
    """(N,) names, or numbers with NaN where unknown."""


class Embedding(NamedTuple):
    """Latents in the plane."""

    points: Array
    """(N, 2)."""
    axis_names: tuple[str, str]


def principal_components(mu: npt.ArrayLike) -> Embedding:
    """The first two principal components of posterior means, (N, z) → (N, 2), N at least 2.

    Axes name the share of the variance that they explain. A component's sign, which is arbitrary,
    is such that its largest loading is positive.
    """
    values = np.asarray(mu, np.float64)
    centred = values - values.mean(0)
    u, singular, loadings = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(loadings[np.arange(len(loadings)), np.abs(loadings).argmax(1)])
    points = np.zeros((len(values), 2))
    kept = min(2, len(singular))
    points[:, :kept] = (u * singular * np.where(signs == 0, 1, signs))[:, :kept]
    total = float((singular**2).sum()) or 1.0
    shares = [*(100 * singular**2 / total), 0.0][:2]
    first, second = (f"PC {i + 1} ({share:.1f} % of variance)" for i, share in enumerate(shares))
    return Embedding(points, (first, second))


def embedding_figure(embedding: Embedding, colorings: Sequence[Coloring], title: str) -> Figure:
    """The same points once for each colouring, side by side.

    Args:
        embedding: N points and what the axes are.
        colorings: at least one. Names and few whole numbers get a legend; other numbers a bar,
            logarithmic where they are positive and span more than a factor of 10.
        title: stands above, literally.
    """
    assert colorings
    side, step, left, top = 3.0, 4.35, 0.75, 0.95
    figure = new_figure(left + step * len(colorings) - 0.1, top + side + 0.65, "white")
    heading = printable(title, 52 * len(colorings))
    write(figure, 0.2, 0.16, heading, fontsize=11, color=INK, va="top")
    for panel, coloring in enumerate(colorings):
        axes = place(figure, left + step * panel, top, side, side)
        _quiet(axes, embedding)
        write(figure, left + step * panel, top - 0.1, printable(coloring.name, 45),
              fontsize=9, color=INK)  # fmt: skip
        _scatter(figure, axes, embedding.points, coloring, left + step * panel + side, top)
    return figure


def trajectory_figure(
    embedding: Embedding, sequences: Sequence[Sequence[int]], title: str
) -> Figure:
    """All points in grey, and an arrow from each time point of a patient to the next.

    Args:
        embedding: N points and what the axes are.
        sequences: for each patient with several time points, their places among the points, in
            order of time.
        title: stands above, literally.
    """
    side, left, top = 4.2, 0.75, 0.75
    figure = new_figure(left + side + 0.35, top + side + 0.65, "white")
    write(figure, 0.2, 0.16, printable(title, 60), fontsize=11, color=INK, va="top")
    note = "a ring is the first time point, a grey point a subject"
    write(figure, left, top - 0.1, note, fontsize=8, color=MUTED)
    axes = place(figure, left, top, side, side)
    _quiet(axes, embedding)
    points = embedding.points
    axes.scatter(points[:, 0], points[:, 1], s=9, color=MUTED, alpha=0.45, linewidths=0)
    few = len(sequences) <= len(CATEGORIES)
    for number, places in enumerate(sequences):
        color = CATEGORIES[number] if few else SEQUENTIAL(0.9 * number / (len(sequences) - 1))
        path = points[list(places)]
        axes.scatter(path[:1, 0], path[:1, 1], s=20, facecolor="white", edgecolor=color, zorder=3)
        for start, end in pairwise(path):
            axes.annotate(
                "", xy=(end[0], end[1]), xytext=(start[0], start[1]),
                arrowprops={
                    "arrowstyle": "-|>", "color": color, "linewidth": 1.2, "mutation_scale": 9,
                    "shrinkA": 2.2, "shrinkB": 0,
                },
            )  # fmt: skip
    return figure


def decoded_grid(
    pictures: Array,
    row_names: Sequence[str],
    column_names: Sequence[str],
    title: str,
    window: tuple[float, float] | None = None,
    changes: Array | None = None,
) -> Figure:
    """Decoded pictures in rows and columns.

    Args:
        pictures: (R, C, H, W).
        row_names: R names, such as modalities or latent units; empty strings take no room.
        column_names: C names, such as steps.
        title: stands above, literally.
        window: black and white point of all rows; None takes percentiles 0.5 and 99.9 of a row.
        changes: (R, H, W) magnitudes for a last column, all on one scale.
    """
    rows, columns, height, width = pictures.shape
    assert len(row_names) == rows, (row_names, pictures.shape)
    assert len(column_names) == columns, (column_names, pictures.shape)
    inch = 1.15 / max(height, width)
    tall, wide, gap = inch * height, inch * width, 0.04
    left = 0.5 if any(row_names) else 0.14
    total = left + columns * (wide + gap) + (wide + 0.75 if changes is not None else 0.1)
    heading = wrapped(title, max(total, 3.6) - 0.3, 11)
    top = 0.5 + 0.2 * (heading.count("\n") + 1)
    figure = new_figure(max(total, 3.6), top + rows * (tall + gap) + 0.1, DARK)
    write(figure, 0.14, 0.14, heading, fontsize=11, va="top")
    scale = float(np.percentile(changes, 99.5)) or 1.0 if changes is not None else 1.0
    for r, row_name in enumerate(row_names):
        y = top + r * (tall + gap)
        name_row(figure, left - 0.16, y + tall / 2, printable(row_name, 20), 7.5)
        levels = window or grey_window(pictures[r])
        for c in range(columns):
            show(place(figure, left + c * (wide + gap), y, wide, tall), pictures[r, c], levels)
        if changes is not None:
            x = left + columns * (wide + gap) + 0.1
            show(place(figure, x, y, wide, tall), changes[r], (0, scale), heat=True)
    for c, name in enumerate(column_names):
        write(figure, left + c * (wide + gap) + wide / 2, top - 0.08, printable(name, 18),
              fontsize=7.5, color=MUTED, ha="center")  # fmt: skip
    if changes is not None:
        x = left + columns * (wide + gap) + 0.1
        write(figure, x + wide / 2, top - 0.08, "|last − first|", fontsize=7.5, color=MUTED,
              ha="center")  # fmt: skip
        heat_bar(place(figure, x + wide + 0.08, top, 0.07, tall), scale, color=LIGHT)
    return figure


def _quiet(axes: Axes, embedding: Embedding) -> None:
    """Equal units on both axes: distances in the picture are distances between points."""
    points = embedding.points
    middle = (points.max(0) + points.min(0)) / 2
    reach = 0.55 * float((points.max(0) - points.min(0)).max()) or 1.0
    axes.set_xlim(middle[0] - reach, middle[0] + reach)
    axes.set_ylim(middle[1] - reach, middle[1] + reach)
    axes.set_axisbelow(True)
    axes.grid(color=GRID, linewidth=0.7)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8, labelcolor=INK, labelfontfamily=FONT)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    text: dict[str, Any] = {"fontsize": 8.5, "color": INK, "fontfamily": FONT}
    axes.set_xlabel(embedding.axis_names[0], labelpad=5, **text)
    axes.set_ylabel(embedding.axis_names[1], labelpad=6, **text)


def _scatter(
    figure: Figure, axes: Axes, points: Array, coloring: Coloring, right: float, top: float
) -> None:
    look: dict[str, Any] = {"s": 22 if len(points) < 300 else 9, "linewidths": 0, "alpha": 0.85}
    values = np.asarray(coloring.values)
    if values.dtype.kind not in "fiu":
        names = list(dict.fromkeys(values.tolist()))
        groups = [(str(name), values == name) for name in names]
        named: list[Any] = [CATEGORIES[i % len(CATEGORIES)] for i in range(len(groups))]
        _legend(figure, axes, points, groups, named, look, right, top)
        return
    values = values.astype(float)
    known = np.isfinite(values)
    steps = np.unique(values[known])
    if len(steps) <= MOST_STEPS and (steps == np.round(steps)).all():
        groups = [(f"{step:g}", values == step) for step in steps]
        shades: list[Any] = [
            SEQUENTIAL(0.92 * i / max(len(steps) - 1, 1)) for i in range(len(groups))
        ]
        if not known.all():
            groups, shades = [*groups, ("unknown", ~known)], [*shades, MUTED]
        _legend(figure, axes, points, groups, shades, look, right, top)
        return
    spread = steps[0] > 0 and steps[-1] > LARGE_RATIO * steps[0]
    norm = (LogNorm if spread else Normalize)(steps[0], steps[-1])
    for chosen, shade in ((~known, MUTED), (known, SEQUENTIAL(norm(values[known])))):
        axes.scatter(points[chosen, 0], points[chosen, 1], color=shade, **look)
    bar = figure.colorbar(
        ScalarMappable(norm, SEQUENTIAL),
        cax=place(figure, right + 0.12, top, 0.09, 3.0),
        ticks=LogLocator(subs=(1, 2, 5)) if spread else MaxNLocator(6),
        format=EngFormatter(sep="") if steps[-1] >= 1e4 else "%g",  # 20k, not 2 × 10⁴
    )
    bar.minorticks_off()
    bar.outline.set_visible(False)
    bar.ax.tick_params(
        which="both", labelsize=7, labelcolor=INK, color=MUTED, length=2, labelfontfamily=FONT
    )


def _legend(
    figure: Figure,
    axes: Axes,
    points: Array,
    groups: Sequence[tuple[str, Array]],
    shades: Sequence[Any],
    look: dict[str, Any],
    right: float,
    top: float,
) -> None:
    """Points by group, and beside the panel each group's name in its colour with its size."""
    for line, ((name, chosen), shade) in enumerate(zip(groups, shades, strict=True)):
        axes.scatter(points[chosen, 0], points[chosen, 1], color=shade, **look)
        write(figure, right + 0.12, top + 0.2 + 0.34 * line, printable(name, 12),
              fontsize=8.5, color=shade, fontweight="bold")  # fmt: skip
        write(figure, right + 0.12, top + 0.34 + 0.34 * line, f"n = {int(chosen.sum()):,}",
              fontsize=7, color=MUTED)  # fmt: skip

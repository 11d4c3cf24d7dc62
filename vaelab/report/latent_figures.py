"""Figures of a latent space: embeddings, trajectories of patients, decoded pictures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import seaborn as sns  # type: ignore[import-untyped, unused-ignore]
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from vaelab.report.axes import bare_bar, chart_axes, short
from vaelab.report.canvas import (
    Array,
    drawable,
    heat_bar,
    name_row,
    new_figure,
    place,
    show,
    wrapped,
    write,
    write_title,
)
from vaelab.report.slices import grey_window
from vaelab.report.style import CATEGORIES, DARK, MUTED, SEQUENTIAL, styled

MOST_STEPS: Final = 6  # different whole numbers up to which each has its own colour
LARGE_RATIO: Final = 10  # of largest to smallest value from which colours are logarithmic


class Coloring(NamedTuple):
    """The quantity that colours the points of a panel."""

    name: str
    """Title of the panel, with the unit."""
    values: Array
    """(N,) names, or numbers with NaN where unknown."""


class Embedding(NamedTuple):
    """Latents in the plane."""

    points: Array
    """(N, 2)."""
    axis_names: tuple[str, str]


def principal_components(mu: npt.ArrayLike) -> Embedding:
    """The first two principal components of posterior means, (N, z) → (N, 2), N at least 2.

    Axes name the share of the variance that they explain. The sign of a component, which is
    arbitrary, makes its largest loading positive.
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


@styled
def embedding_figure(embedding: Embedding, colorings: Sequence[Coloring], title: str) -> Figure:
    """The same points once for each colouring, side by side.

    Args:
        embedding: N points and the names of the axes.
        colorings: at least one. Names and few whole numbers have a legend; other numbers a colour
            bar, logarithmic where they are positive and span more than a factor of 10.
        title: stands above, literally.
    """
    assert colorings
    side, step, left, top = 3.0, 4.35, 0.75, 0.95
    figure = new_figure(left + step * len(colorings) - 0.1, top + side + 0.65)
    write_title(figure, title)
    for panel, coloring in enumerate(colorings):
        x = left + step * panel
        axes = _plane(figure, (x, top, side, side), embedding, drawable(coloring.name, 45))
        norm = _scatter(axes, embedding.points, coloring)
        if norm is not None:
            bar = figure.colorbar(
                ScalarMappable(norm, SEQUENTIAL),
                cax=place(figure, x + side + 0.12, top, 0.09, side),
                ticks=LogLocator(subs=(1, 2, 5)) if isinstance(norm, LogNorm) else MaxNLocator(6),
                format=FuncFormatter(lambda value, _: short(value)),
            )
            bare_bar(bar)
    return figure


@styled
def trajectory_figure(
    embedding: Embedding, sequences: Sequence[Sequence[int]], title: str
) -> Figure:
    """All points in grey, and an arrow from each time point of a patient to the next.

    Args:
        embedding: N points and the names of the axes.
        sequences: for each patient with several time points, the indices of the points, in the
            order of time.
        title: stands above, literally.
    """
    side, left, top = 4.2, 0.75, 0.85
    figure = new_figure(left + side + 0.35, top + side + 0.65)
    write_title(figure, title)
    note = "grey: all scans; a ring: the first time point of a patient"
    write(figure, 0.2, top - 0.22, note, color=MUTED)
    axes = _plane(figure, (left, top, side, side), embedding, "")
    points = embedding.points
    axes.scatter(points[:, 0], points[:, 1], s=9, color=MUTED, alpha=0.45, linewidths=0)
    few = len(sequences) <= len(CATEGORIES)
    for patient, places in enumerate(sequences):
        color = CATEGORIES[patient] if few else SEQUENTIAL(patient / (len(sequences) - 1))
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


@styled
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
        row_names: R names, such as modalities or latent units.
        column_names: C names, such as steps.
        title: stands above, literally.
        window: black and white point of all rows; None: percentiles 0.5 and 99.9 of each row.
        changes: (R, H, W) magnitudes for a last column, all on one scale.
    """
    rows, columns, height, width = pictures.shape
    assert len(row_names) == rows, (row_names, pictures.shape)
    assert len(column_names) == columns, (column_names, pictures.shape)
    inch = 1.15 / max(height, width)
    tall, wide, gap = inch * height, inch * width, 0.04
    left = 0.5 if any(row_names) else 0.14
    total = left + columns * (wide + gap) + (wide + 0.75 if changes is not None else 0.1)
    heading = wrapped(title, max(total, 3.6) - 0.4, 11)
    top = 0.5 + 0.2 * (heading.count("\n") + 1)
    figure = new_figure(max(total, 3.6), top + rows * (tall + gap) + 0.1, DARK)
    write_title(figure, title)
    scale = float(np.percentile(changes, 99.5)) or 1.0 if changes is not None else 1.0
    for r, row_name in enumerate(row_names):
        y = top + r * (tall + gap)
        name_row(figure, left - 0.16, y + tall / 2, drawable(row_name, 20), 7.5)
        levels = window or grey_window(pictures[r])
        for c in range(columns):
            show(place(figure, left + c * (wide + gap), y, wide, tall), pictures[r, c], levels)
        if changes is not None:
            x = left + columns * (wide + gap) + 0.1
            show(place(figure, x, y, wide, tall), changes[r], (0, scale), heat=True)
    for c, name in enumerate(column_names):
        write(figure, left + c * (wide + gap) + wide / 2, top - 0.08, drawable(name, 18),
              fontsize=7.5, color=MUTED, ha="center")  # fmt: skip
    if changes is not None:
        x = left + columns * (wide + gap) + 0.1
        write(figure, x + wide / 2, top - 0.08, "|last − first|", fontsize=7.5, color=MUTED,
              ha="center")  # fmt: skip
        heat_bar(place(figure, x + wide + 0.08, top, 0.07, tall), scale)
    return figure


def _plane(
    figure: Figure, inches: tuple[float, float, float, float], embedding: Embedding, title: str
) -> Axes:
    """Axes of equal scale, so that distances in the figure are distances between points."""
    axes = chart_axes(figure, inches, title, *embedding.axis_names, grid="both")
    low, high = embedding.points.min(0), embedding.points.max(0)
    reach = 0.55 * float((high - low).max()) or 1.0
    (x, y) = (low + high) / 2
    axes.set(xlim=(x - reach, x + reach), ylim=(y - reach, y + reach))
    axes.spines[:].set_visible(False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    return axes


def _scatter(axes: Axes, points: Array, coloring: Coloring) -> Normalize | None:
    """Draw the points; returns the colour scale where they have no legend."""
    look: dict[str, Any] = {"s": 22 if len(points) < 300 else 9, "linewidth": 0, "alpha": 0.85}
    values = np.asarray(coloring.values)
    if values.dtype.kind not in "fiu":
        names = list(dict.fromkeys(values.tolist()))
        shades: list[Any] = [CATEGORIES[i % len(CATEGORIES)] for i in range(len(names))]
        _draw_groups(axes, points, [str(value) for value in values], names, shades, look)
        return None
    values = values.astype(float)
    known = np.isfinite(values)
    steps = np.unique(values[known])
    if len(steps) <= MOST_STEPS and (steps == np.round(steps)).all():
        names = [f"{step:g}" for step in steps]
        shades = [SEQUENTIAL(i / max(len(steps) - 1, 1)) for i in range(len(steps))]
        labels = [f"{value:g}" if np.isfinite(value) else "unknown" for value in values]
        if not known.all():
            names, shades = [*names, "unknown"], [*shades, MUTED]
        _draw_groups(axes, points, labels, names, shades, look)
        return None
    logarithmic = steps[0] > 0 and steps[-1] > LARGE_RATIO * steps[0]
    norm = (LogNorm if logarithmic else Normalize)(steps[0], steps[-1])
    for chosen, shade in ((~known, MUTED), (known, SEQUENTIAL(norm(values[known])))):
        axes.scatter(points[chosen, 0], points[chosen, 1], color=shade, **look)
    return norm


def _draw_groups(
    axes: Axes,
    points: Array,
    labels: Sequence[str],
    names: Sequence[Any],
    shades: Sequence[Any],
    look: dict[str, Any],
) -> None:
    """Points by group, and beside the panel each group's name with its size."""
    captions = {
        str(name): f"{drawable(str(name), 12)}\nn = {labels.count(str(name)):,}" for name in names
    }
    x, y = axes.get_xlabel(), axes.get_ylabel()
    sns.scatterplot(
        x=points[:, 0], y=points[:, 1], hue=[captions[label] for label in labels],
        hue_order=list(captions.values()), palette=list(shades), ax=axes, **look,
    )  # fmt: skip
    axes.set(xlabel=x, ylabel=y)
    sns.move_legend(axes, "upper left", bbox_to_anchor=(1.0, 1.0), labelspacing=0.8, title=None)

"""Charts of scores and of training, from arrays to ``Figure``; pure functions, no ``pyplot``."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from vaelab.errors import UserError
from vaelab.report.canvas import (
    BLUE,
    FONT,
    GREEN,
    GRID,
    INK,
    MUTED,
    ORANGE,
    TEXT,
    Array,
    new_figure,
    place,
    printable,
    wrapped,
    write,
)

# ---------------------------------------------------------------- scores


def _chart(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    figure = new_figure(width, height, "white")
    heading = wrapped(title, width - 0.4, 11)
    write(figure, 0.2, 0.16, heading, fontsize=11, color=INK, va="top")
    top = 0.42 + 0.2 * (heading.count("\n") + 1)
    axes = place(figure, 0.78, top, width - 0.78 - 0.25, height - top - 0.58)
    _quiet(axes)
    return figure, axes


def _quiet(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(
        which="both", labelsize=8, labelcolor=INK, color=MUTED, length=0, labelfontfamily=FONT
    )
    axes.tick_params(axis="x", length=3)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_offset_text().set(fontsize=8, fontfamily=FONT)


def _label(axes: Axes, x: str = "", y: str = "") -> None:
    axes.set_xlabel(x, fontsize=8.5, color=INK, labelpad=5, **TEXT)
    axes.set_ylabel(y, fontsize=8.5, color=INK, labelpad=6, **TEXT)


def _name_lines(axes: Axes) -> None:
    """The lines' names in their own colours, on the upper edge of the axes."""
    legend = axes.legend(
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=4,
        frameon=False,
        labelcolor="linecolor",
        handlelength=1.5,
        handletextpad=0.5,
        columnspacing=1.4,
        borderaxespad=0.2,
        prop={"family": FONT, "size": 8},
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def roc_curve_figure(
    false_positive_rate: npt.ArrayLike, true_positive_rate: npt.ArrayLike, auroc: float
) -> Figure:
    """The ROC curve, both rates (T,) in [0, 1] and ascending, with its area named."""
    figure = new_figure(4.4, 4.6, "white")
    axes = place(figure, 0.68, 0.56, 3.5, 3.5)
    _quiet(axes)
    x, y = np.asarray(false_positive_rate, float), np.asarray(true_positive_rate, float)
    axes.grid(color=GRID, linewidth=0.7)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
    axes.fill_between(x, y, color=BLUE, alpha=0.12, linewidth=0)
    axes.plot(x, y, color=BLUE, linewidth=1.8, solid_joinstyle="round", clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    figure_title = f"ROC: area under the curve {auroc:.3f}"
    write(figure, 0.2, 0.26, figure_title, fontsize=11, color=INK)
    chance: dict[str, Any] = {"rotation": 45, "ha": "center", "va": "top"}
    axes.text(0.82, 0.795, "chance", fontsize=7.5, color=MUTED, **chance, **TEXT)
    _label(axes, "false positive rate (1 − specificity)", "true positive rate (sensitivity)")
    return figure


def score_histogram(scores: npt.ArrayLike, labels: npt.ArrayLike, score_name: str) -> Figure:
    """How the scores of normal (label 0) and sick (label 1) samples are spread.

    Both share up to 40 bins over percentiles 0.5 to 99.5 of all finite scores, so one wild sample
    does not flatten the rest; what lies beyond is counted in the outermost bin. Heights are
    shares of the class, since classes differ in size; dashed lines are medians.
    """
    values, classes = np.asarray(scores, float).ravel(), np.asarray(labels).ravel()
    assert values.shape == classes.shape, (values.shape, classes.shape)
    finite = np.isfinite(values)
    left_out = f" ({int((~finite).sum())} not finite, left out)" if not finite.all() else ""
    values, classes = values[finite], classes[finite]

    figure, axes = _chart(6.2, 3.7, f"Anomaly scores: {score_name}{left_out}")
    edges = _bin_edges(values, bins=int(np.clip(2 * np.sqrt(values.size), 10, 40)))
    for label, name, color in ((0, "normal", BLUE), (1, "sick", ORANGE)):
        own = values[classes == label]
        if own.size:
            counts, _ = np.histogram(np.clip(own, edges[0], edges[-1]), edges)
            share = counts / own.size
            axes.stairs(share, edges, fill=True, color=color, alpha=0.28, linewidth=0)
            axes.stairs(share, edges, color=color, linewidth=1.4)
            axes.plot([], [], color=color, linewidth=3, label=f"{name} (n = {own.size:,})")
            median = float(np.clip(np.median(own), edges[0], edges[-1]))
            axes.axvline(median, color=color, linewidth=1.1, linestyle=(0, (4, 3)))
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    _label(axes, f"{printable(score_name, 60)}  (larger is more abnormal)", "share of the class")
    if values.size:
        _name_lines(axes)
    return figure


def _bin_edges(values: Array, bins: int) -> Array:
    if not values.size:
        return np.linspace(0, 1, bins + 1)
    low, high = np.percentile(values, (0.5, 99.5))
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # all alike: give them room
        room = max(0.5, 1e-3 * abs(low))
        low, high = low - room, high + room
    return np.linspace(low, high, bins + 1)


# ---------------------------------------------------------------- training


class _Curve(NamedTuple):
    column: str
    name: str
    color: str
    dash: str | tuple[float, tuple[float, float]] = "-"


_PANELS: Final = {
    "Loss": (
        _Curve("train/loss", "train", BLUE),
        _Curve("val/loss", "validation", ORANGE),
        _Curve("val/neg_elbo", "validation −ELBO", GREEN, (0, (2.5, 1.2))),
    ),
    "Reconstruction": (
        _Curve("train/recon", "train", BLUE),
        _Curve("val/recon", "validation", ORANGE),
    ),
    "KL": (
        _Curve("train/kl", "train", BLUE),
        _Curve("val/kl", "validation", ORANGE),
    ),
    "Beta": (_Curve("train/beta", "train", BLUE),),
}
_LATENT_PANELS: Final = {
    "Error of what is decoded": (
        _Curve("val/recon_at_mu", "at mu", BLUE),
        _Curve("val/recon_at_zero", "at z = 0", ORANGE),
        _Curve("val/recon_at_draw", "at drawn z", GREEN, (0, (2.5, 1.2))),
    ),
    "Latent units": (
        _Curve("val/active_units", "active", BLUE),
        _Curve("val/paid_units", "that cost KL", ORANGE),
    ),
}
_UNITS: Final = {"Beta": "", "Error of what is decoded": "squared, per voxel", "Latent units": ""}


def learning_curves(
    table: Mapping[str, Sequence[float]],
    samples: Mapping[str, int] | None = None,
    title: str = "Learning curves",
) -> Figure:
    """Loss, reconstruction, KL and beta over the epochs, and whether the latents are used.

    Args:
        table: equally long columns by name: ``epoch`` (else rows are counted from 0),
            ``train/`` and ``val/`` ``loss``, ``recon`` and ``kl``, ``val/neg_elbo`` and
            ``train/beta``, each optional. NaN is a gap (an epoch without validation). With what
            ``LatentHealth`` logs there is a third row: the error of x_hat(mu), x_hat(0) and of a
            drawn z, which are alike where the decoder ignores z, and the units in use.
        samples: how many samples ``train`` and ``val`` have. The logged values are sums
            over a split; divided by its size, the two splits can be compared.
        title: stands above, literally.

    A panel is logarithmic where its values are positive and span more than a factor of 20.

    Raises:
        UserError: no column of ``table`` is one that is drawn.
    """
    known = [curve.column for curves in _PANELS.values() for curve in curves]
    latent = any(curve.column in table for curves in _LATENT_PANELS.values() for curve in curves)
    panels = {**_PANELS, **(_LATENT_PANELS if latent else {})}
    drawn = [column for column in known if column in table]
    if not drawn:
        raise UserError(
            f"learning curves: none of the columns {sorted(table)} is drawn;"
            f" log at least one of {known}"
        )
    epochs = np.asarray(table.get("epoch", range(len(table[drawn[0]]))), float)
    figure = new_figure(9.2, 0.8 + 2.6 * (len(panels) // 2), "white")
    write(figure, 0.2, 0.16, wrapped(title, 8.8, 12), fontsize=12, color=INK, va="top")
    for panel, (name, curves) in enumerate(panels.items()):
        axes = place(figure, 0.85 + 4.55 * (panel % 2), 0.85 + 2.6 * (panel // 2), 3.6, 2.0)
        _quiet(axes)
        axes.set_title(name, loc="left", fontsize=9.5, color=INK, pad=5, **TEXT)
        sums = name not in _UNITS
        heights = []
        for curve in curves:
            if curve.column not in table:
                continue
            size = samples[curve.column.split("/")[0]] if sums and samples else 1
            values = np.asarray(table[curve.column], float) / size
            assert values.shape == epochs.shape, (curve.column, values.shape, epochs.shape)
            held = np.isfinite(values)
            axes.plot(
                epochs[held],
                values[held],
                linestyle=curve.dash,
                color=curve.color,
                label=curve.name,
                linewidth=1.6,
                marker="o" if held.sum() < 12 else None,
                markersize=3,
            )
            heights.append(values[held])
        pooled = np.concatenate(heights) if heights else np.empty(0)
        if not pooled.size:
            axes.set(xticks=[], yticks=[], xlim=(0, 1))
            middle: dict[str, Any] = {"ha": "center", "va": "center", "transform": axes.transAxes}
            axes.text(0.5, 0.5, "not logged", fontsize=8.5, color=MUTED, **middle, **TEXT)
            continue
        if sums and pooled.min() > 0 and pooled.max() > 20 * pooled.min():
            axes.set_yscale("log")
        else:
            if 0 <= pooled.min() < 0.5 * pooled.max():
                axes.set_ylim(bottom=0)
            if np.abs(pooled).max() >= 1e4:
                axes.yaxis.set_major_formatter(EngFormatter(sep=""))  # 300k, 4M
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.margins(x=0.02)
        unit = ("per sample" if samples else "sum over the split") if sums else _UNITS[name]
        _label(axes, "epoch" if panel >= len(panels) - 2 else "", unit)
        if len(heights) > 1:
            _name_lines(axes)
    return figure


def kl_per_dimension(kl: npt.ArrayLike, threshold: float) -> Figure:
    """The mean KL of each latent dimension in nats, (Z,), sorted; idle ones in grey.

    A dimension counts as active above ``threshold`` nats; the rest has collapsed to the prior.
    """
    nats = np.sort(np.asarray(kl, float).ravel())[::-1]
    active = int((nats > threshold).sum())
    figure, axes = _chart(
        6.2, 3.4, f"{active} of {nats.size} latent dimensions above {threshold:g} nats"
    )
    edges = np.arange(nats.size + 1) + 0.5
    peak = max(float(nats.max(initial=0)), threshold)
    logarithmic = 0 < 50 * threshold < peak  # else the threshold would lie on the axis
    floor = threshold / 30 if logarithmic else 0
    shown = np.maximum(nats, floor)
    bars: dict[str, Any] = {"fill": True, "linewidth": 0, "baseline": floor}
    if active:
        axes.stairs(shown[:active], edges[: active + 1], color=BLUE, label="active", **bars)
    if active < nats.size:
        axes.stairs(shown[active:], edges[active:], color=MUTED, label="collapsed", **bars)
    axes.axhline(
        threshold, color=ORANGE, linewidth=1.1, linestyle=(0, (2.5, 1.2)), label="threshold"
    )
    axes.set_xlim(0.5, nats.size + 0.5)
    axes.set_yscale("log" if logarithmic else "linear")
    axes.set_ylim(floor, (1.6 if logarithmic else 1.08) * peak or 1)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    _name_lines(axes)
    _label(axes, "latent dimension, sorted", "mean KL (nats)")
    return figure

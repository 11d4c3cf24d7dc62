"""Pictures of reconstructions, scores and training, from arrays to ``Figure``.

Every function is pure: numpy in, a ``matplotlib.figure.Figure`` out. ``pyplot`` is never
imported, so no figure outlives its variable and nobody's backend changes. Pictures of
patients are dark, so the eye adapts to the tissue; charts are white.

Volumes are RAS: axis 0 runs left to right, axis 1 posterior to anterior, axis 2 inferior
to superior. They are shown as a radiologist hangs them: anterior or superior at the top,
the patient's right on the viewer's left, and the face to the left in sagittal views.
"""

import os
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps, patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from vaelab.atomic import replacing
from vaelab.errors import UserError

Array = npt.NDArray[Any]

FONT: Final = "DejaVu Sans"  # ships with matplotlib, so a picture looks alike everywhere
DARK, LIGHT, INK, MUTED, GRID = "#101216", "#f1f3f5", "#22262b", "#8a9099", "#e6e8eb"
BLUE, ORANGE, GREEN = "#2f6fb0", "#d9622b", "#3a8f5c"
# Inferno without its pale end, which could not be told from bright tissue under an overlay.
HEAT: Final = LinearSegmentedColormap.from_list(
    "heat", colormaps["inferno"](np.linspace(0, 0.86, 256)), N=256
)
GREY: Final = colormaps["gray"]

_TEXT: Final[dict[str, Any]] = {"fontfamily": FONT, "parse_math": False}


# ---------------------------------------------------------------- text and files


@lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FONT)).get_charmap())


def printable(text: str, limit: int | None = None) -> str:
    """``text`` as the figures' font can show it, at most ``limit`` characters long.

    A name comes from a file system: what has no glyph (or is a control character or an
    undecodable byte) becomes ``?``. Too long a name loses its middle, since subjects of one
    cohort differ at the end.
    """
    composed = unicodedata.normalize("NFC", text)
    shown = "".join(c if c.isprintable() and ord(c) in _glyphs() else "?" for c in composed)
    if limit is None or len(shown) <= limit:
        return shown
    head = (limit - 1) // 2
    return f"{shown[:head]}…{shown[len(shown) - (limit - 1 - head) :]}"


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: float = 150) -> Path:
    """Write ``figure`` as PNG to ``path``, creating its folders; returns the path.

    The file appears whole or not at all: it is drawn beside its place and then moved there.

    Raises:
        UserError: ``path`` does not end in ``.png``.
    """
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise UserError(f"{target}: figures are written as PNG; end the file name in .png")
    with replacing(target) as partial:
        figure.savefig(partial, dpi=dpi, format="png", facecolor=figure.get_facecolor())
    return target


# ---------------------------------------------------------------- placing things, in inches


def new_figure(width: float, height: float, background: str) -> Figure:
    """An empty figure of ``width`` × ``height`` inches that knows how to draw itself."""
    figure = Figure(figsize=(width, height), facecolor=background)
    FigureCanvasAgg(figure)
    return figure


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place in inches, counted from the upper left corner of ``figure``."""
    wide, high = figure.get_size_inches()
    return figure.add_axes((left / wide, 1 - (top + height) / high, width / wide, height / high))


def write(figure: Figure, left: float, top: float, text: str, **style: Any) -> None:
    """Write ``text``, literally, its baseline at a place in inches from the upper left corner."""
    wide, high = figure.get_size_inches()
    look: dict[str, Any] = {"fontsize": 8, "color": LIGHT, "linespacing": 1.35}
    figure.text(left / wide, 1 - top / high, text, **(look | _TEXT | style))


def name_row(figure: Figure, left: float, middle: float, text: str, fontsize: float = 8.5) -> None:
    """Write ``text`` upwards beside a row of panels, its baseline ``left`` inches from the edge."""
    write(
        figure,
        left,
        middle,
        text,
        fontsize=fontsize,
        rotation=90,
        rotation_mode="anchor",
        ha="center",
        va="baseline",
    )


def wrapped(text: str, width: float, fontsize: float) -> str:
    """``text`` made printable and broken into lines that fit ``width`` inches."""
    characters = max(int(width * 72 / (0.6 * fontsize)), 8)
    return "\n".join(textwrap.wrap(printable(" ".join(text.split())), characters)) or " "


def show(axes: Axes, picture: Array, window: tuple[float, float], heat: bool = False) -> None:
    """Draw ``picture`` (H, W) on a bare panel, in grey or in heat colours."""
    axes.set_axis_off()
    axes.imshow(
        np.ma.masked_invalid(picture),
        cmap=HEAT if heat else GREY,
        vmin=window[0],
        vmax=window[1],
    )


def heat_bar(
    axes: Axes, scale: float, horizontal: bool = False, color: str = LIGHT, ticks: int = 4
) -> Colorbar:
    """A heat scale from 0 to ``scale`` in ``axes``; pointed, since larger values saturate."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, scale), HEAT),
        cax=axes,
        orientation="horizontal" if horizontal else "vertical",
        extend="max",
        extendfrac=0.05,
        ticks=MaxNLocator(ticks),
        format="%g",  # no "1e-8" set apart, it would lie on the caption
    )
    bar.outline.set_visible(False)
    axes.tick_params(
        labelsize=7, labelcolor=color, color=MUTED, length=2, pad=2, labelfontfamily=FONT
    )
    return bar


def orientation_letters(axes: Axes, top: str, bottom: str, left: str, right: str) -> None:
    """Name the patient's sides at the edges of a panel."""
    outline = [patheffects.withStroke(linewidth=1.6, foreground="black")]
    for text, x, y, ha, va in (
        (top, 0.5, 0.985, "center", "top"),
        (bottom, 0.5, 0.015, "center", "bottom"),
        (left, 0.02, 0.5, "left", "center"),
        (right, 0.98, 0.5, "right", "center"),
    ):
        axes.text(
            x,
            y,
            text,
            transform=axes.transAxes,
            ha=ha,
            va=va,
            fontsize=6.5,
            color="#ffd34d",
            path_effects=outline,
            **_TEXT,
        )


# ---------------------------------------------------------------- reconstructions


def axial(volume: Array, index: int) -> Array:
    """The plane at ``index`` of a RAS volume (D, H, W), (H, D): anterior up, right on the left."""
    picture: Array = volume[::-1, ::-1, index].T
    return picture


def coronal(volume: Array, index: int) -> Array:
    """The plane at ``index`` of a RAS volume (D, H, W), (W, D): superior up, right on the left."""
    picture: Array = volume[::-1, index, ::-1].T
    return picture


def sagittal(volume: Array, index: int) -> Array:
    """The plane at ``index`` of a RAS volume (D, H, W), (W, H): superior up, face to the left."""
    picture: Array = volume[index, ::-1, ::-1].T
    return picture


def grey_window(image: Array) -> tuple[float, float]:
    """Black and white points: percentiles 0.5 and 99.9 of ``image``, never equal.

    Not 99.5: with the air around a head, an enhancing lesion is often less than 0.5% of the
    voxels and would be as white as healthy white matter.
    """
    low, high = (float(value) for value in np.percentile(image, (0.5, 99.9)))
    if high > low:
        return low, high
    low, high = float(image.min()), float(image.max())  # a few voxels on nothing
    return (low, high) if high > low else (low, low + 1)


class _View(NamedTuple):
    """One plane of a sample: input, reconstruction and |difference|, each (C, h, w)."""

    name: str
    letters: str  # top, bottom, left, right; empty for a radiograph
    pictures: tuple[Array, Array, Array]


def _views(image: Array, reconstruction: Array, difference: Array) -> list[_View]:
    triple = (image, reconstruction, difference)
    if image.ndim == 3:
        return [_View("", "", triple)]
    views = []
    for name, letters, plane, axis in (
        ("Axial", "APRL", axial, 3),
        ("Coronal", "SIRL", coronal, 2),
        ("Sagittal", "SIAP", sagittal, 1),
    ):
        centre = image.shape[axis] // 2
        planes = [np.stack([plane(v, centre) for v in volumes]) for volumes in triple]
        views.append(_View(f"{name} {centre}", letters, (planes[0], planes[1], planes[2])))
    return views


def reconstruction_slices(
    image: Array, reconstruction: Array, channel_names: Sequence[str], title: str
) -> Figure:
    """Input, reconstruction and absolute difference of one sample, one row per channel.

    Args:
        image: one sample, (C, D, H, W) in RAS or (C, H, W). A volume is cut through its
            centre into an axial, a coronal and a sagittal plane.
        reconstruction: of the same shape and unit; where not finite it is left blank.
        channel_names: C names, for example the modalities.
        title: stands above the picture, literally.

    Grey levels span percentiles 0.5 to 99.9 of the channel's *input*, for its reconstruction
    too, so a faint reconstruction looks faint. Differences have one scale per channel, from 0
    to their percentile 99.5 over the whole sample.
    """
    assert image.shape == reconstruction.shape, (image.shape, reconstruction.shape)
    assert image.ndim in (3, 4), image.shape
    assert len(channel_names) == len(image), (channel_names, image.shape)
    image, reconstruction = np.asarray(image, np.float32), np.asarray(reconstruction, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(image - reconstruction)
    views = _views(image, reconstruction, difference)

    # One length per voxel for all planes, so that the same head has the same size in each.
    flat = image.ndim == 3
    tallest = max(view.pictures[0].shape[1] for view in views)
    inch = (2.2 if flat else 1.45) / tallest
    gap, group, left, right, bottom = 0.04, 0.16, 0.42, 0.62, 0.14
    widths = [inch * view.pictures[0].shape[2] for view in views]
    row = inch * tallest
    wide = left + sum(3 * w + 2 * gap for w in widths) + group * (len(views) - 1) + right
    heading = wrapped(title, wide - 0.3, 11)
    top = 0.3 + 0.2 * (heading.count("\n") + 1) + (0.12 if flat else 0.36)
    figure = new_figure(wide, top + len(image) * (row + gap) - gap + bottom, DARK)
    write(figure, 0.14, 0.14, heading, fontsize=11, va="top")

    for c, name in enumerate(channel_names):
        y = top + c * (row + gap)
        window, scale = grey_window(image[c]), _heat_scale(difference[c])
        name_row(figure, 0.28, y + row / 2, printable(name, 18), 9)
        x = left
        for view, width in zip(views, widths, strict=True):
            if c == 0 and view.name:
                write(figure, x + 1.5 * width + gap, top - 0.3, view.name, fontsize=9, ha="center")
            kinds = ("input", "reconstruction", "|difference|")
            for k, (kind, pictures) in enumerate(zip(kinds, view.pictures, strict=True)):
                axes = place(figure, x, y, width, row)
                show(axes, pictures[c], (0, scale) if k == 2 else window, heat=k == 2)
                if c == 0:
                    write(figure, x + width / 2, top - 0.09, kind, color=MUTED, ha="center")
                if c == 0 and k == 0 and view.letters:
                    orientation_letters(axes, *view.letters)
                x += width + gap
            x += group - gap
        heat_bar(place(figure, wide - right + 0.08, y + 0.06, 0.07, row - 0.12), scale)
    return figure


def _heat_scale(difference: Array) -> float:
    """Percentile 99.5 of the finite differences; 1 where there is nothing to scale."""
    finite = difference[np.isfinite(difference)]
    scale = float(np.percentile(finite, 99.5)) if finite.size else 0.0
    return scale or (float(finite.max(initial=0)) or 1.0)


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
    axes.set_xlabel(x, fontsize=8.5, color=INK, labelpad=5, **_TEXT)
    axes.set_ylabel(y, fontsize=8.5, color=INK, labelpad=6, **_TEXT)


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
    axes.text(0.82, 0.795, "chance", fontsize=7.5, color=MUTED, **chance, **_TEXT)
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


def learning_curves(
    table: Mapping[str, Sequence[float]],
    samples: Mapping[str, int] | None = None,
    title: str = "Learning curves",
) -> Figure:
    """Loss, reconstruction, KL and beta over the epochs, in a 2 × 2 picture.

    Args:
        table: equally long columns by name: ``epoch`` (else rows are counted from 0),
            ``train/`` and ``val/`` ``loss``, ``recon`` and ``kl``, ``val/neg_elbo`` and
            ``train/beta``, each optional. NaN is a gap (an epoch without validation).
        samples: how many samples ``train`` and ``val`` have. The logged values are sums
            over a split; divided by its size, the two splits can be compared.
        title: stands above, literally.

    A panel is logarithmic where its values are positive and span more than a factor of 20.

    Raises:
        UserError: no column of ``table`` is one that is drawn.
    """
    known = [curve.column for curves in _PANELS.values() for curve in curves]
    drawn = [column for column in known if column in table]
    if not drawn:
        raise UserError(
            f"learning curves: none of the columns {sorted(table)} is drawn;"
            f" log at least one of {known}"
        )
    epochs = np.asarray(table.get("epoch", range(len(table[drawn[0]]))), float)
    figure = new_figure(9.2, 6.0, "white")
    write(figure, 0.2, 0.16, wrapped(title, 8.8, 12), fontsize=12, color=INK, va="top")
    for panel, (name, curves) in enumerate(_PANELS.items()):
        axes = place(figure, 0.85 + 4.55 * (panel % 2), 0.85 + 2.6 * (panel // 2), 3.6, 2.0)
        _quiet(axes)
        axes.set_title(name, loc="left", fontsize=9.5, color=INK, pad=5, **_TEXT)
        sums = name != "Beta"
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
            axes.text(0.5, 0.5, "not logged", fontsize=8.5, color=MUTED, **middle, **_TEXT)
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
        unit = ("per sample" if samples else "sum over the split") if sums else ""
        _label(axes, "epoch" if panel > 1 else "", unit)
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

"""Charts of a training: learning curves, and the KL of each latent unit."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vaelab.errors import UserError
from vaelab.report.axes import chart_axes, count_axis, legend_above, scale_axis, single_chart
from vaelab.report.canvas import Array, new_figure, write_title
from vaelab.report.style import BLUE, GREEN, MUTED, ORANGE, styled


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


@styled
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
        UserError: no column of ``table`` is drawn.
    """
    known = [curve.column for curves in _PANELS.values() for curve in curves]
    columns = [column for column in known if column in table]
    if not columns:
        raise UserError(
            f"learning curves: none of the columns {sorted(table)} is drawn;"
            f" log at least one of {known}"
        )
    epochs = np.asarray(table.get("epoch", range(len(table[columns[0]]))), float)
    figure = new_figure(9.2, 6.0)
    write_title(figure, title, 12)
    for panel, (name, curves) in enumerate(_PANELS.items()):
        sums = name != "Beta"
        inches = (0.85 + 4.55 * (panel % 2), 0.85 + 2.6 * (panel // 2), 3.6, 2.0)
        unit = ("per sample" if samples else "sum over the split") if sums else ""
        axes = chart_axes(figure, inches, name, "epoch" if panel > 1 else "", unit)
        sizes = samples if sums and samples else {"train": 1, "val": 1}
        values = {
            curve: np.asarray(table[curve.column], float) / sizes[curve.column.split("/")[0]]
            for curve in curves
            if curve.column in table
        }
        _draw(axes, epochs, values)
    return figure


def _draw(axes: Axes, epochs: Array, values: Mapping[_Curve, Array]) -> None:
    for curve, heights in values.items():
        assert heights.shape == epochs.shape, (curve.column, heights.shape, epochs.shape)
        known = np.isfinite(heights)
        marker = "o" if known.sum() < 12 else None
        axes.plot(epochs[known], heights[known], linestyle=curve.dash, color=curve.color,
                  label=curve.name, marker=marker, markersize=3)  # fmt: skip
    pooled = np.concatenate([np.empty(0), *values.values()])
    if not np.isfinite(pooled).any():
        axes.set(xticks=[], yticks=[], xlim=(0, 1), ylabel="")
        axes.text(0.5, 0.5, "not logged", color=MUTED, ha="center", transform=axes.transAxes)
        return
    scale_axis(axes, "y", pooled)
    count_axis(axes.xaxis)
    axes.margins(x=0.02)
    if len(values) > 1:
        legend_above(axes, labelcolor="linecolor")


@styled
def kl_per_unit(kl: npt.ArrayLike) -> Figure:
    """The mean KL of each latent unit in nats, (z,), sorted from the largest.

    A unit without KL has collapsed to the prior. Active units are defined by the variance of mu
    instead: see :func:`vaelab.metrics.latent.active_units`.
    """
    nats = np.sort(np.asarray(kl, float).ravel())[::-1]
    title = f"KL of each of {nats.size} latent units: {nats.sum():.4g} nats in all"
    figure, axes = single_chart(6.2, 3.4, title, "latent unit, sorted", "mean KL, nats")
    floor = max(float(nats.max()) / 1e4, 1e-6)  # a logarithmic axis has no room for 0
    scale_axis(axes, "y", np.maximum(nats, floor))
    baseline = floor if axes.get_yscale() == "log" else 0.0
    edges = np.arange(nats.size + 1) + 0.5
    axes.stairs(np.maximum(nats, baseline), edges, fill=True, baseline=baseline, color=BLUE)
    axes.set_xlim(0.5, nats.size + 0.5)
    axes.set_ylim(baseline, 1.3 * max(float(nats.max()), baseline) or 1)
    count_axis(axes.xaxis)
    return figure

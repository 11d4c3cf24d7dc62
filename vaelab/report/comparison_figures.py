"""Charts of several runs: rate and distortion, learning curves, schedules of beta."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import seaborn as sns  # type: ignore[import-untyped, unused-ignore]
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from vaelab.report.axes import (
    bare_bar,
    chart_axes,
    count_axis,
    is_wide,
    legend_above,
    scale_axis,
)
from vaelab.report.canvas import drawable, new_figure, place, write_title
from vaelab.report.style import MUTED, SEQUENTIAL, styled

MOST_NAMED: Final = 12  # runs that a legend can still distinguish
DASHES: Final = ("-", (0, (4, 1.6)), (0, (1.2, 1.2)), (0, (5, 1.4, 1.2, 1.4)))


class RatePoint(NamedTuple):
    """A run at its best epoch; both sums are means over validation samples."""

    name: str
    annealing: str
    beta: float
    rate: float  # KL in nats
    distortion: float  # squared error, summed over channels and voxels


class RunCurves(NamedTuple):
    """The validation curves of a run; NaN is a gap."""

    name: str
    annealing: str
    beta: float  # the target
    epochs: Sequence[float]
    distortion: Sequence[float]  # per sample
    rate: Sequence[float]  # per sample, in nats
    betas: Sequence[float]


# ---------------------------------------------------------------- rate and distortion


@styled
def rate_distortion_figure(points: Sequence[RatePoint], joined: bool = True) -> Figure:
    """Distortion over rate, one point per run, annealing as hue, beta as label.

    Dashed lines join equal −ELBO at beta 1, that is distortion + rate (Alemi et al. 2018,
    arXiv:1711.00464), unless an axis is logarithmic or they would be all but level.

    Args:
        points: runs; those with a value that is not finite are left out.
        joined: join the runs of a schedule in the order of beta, and runs of equal beta by their
            mean. Use it only where runs differ in nothing else.
    """
    figure = new_figure(7.4, 5.2)
    write_title(figure, "Rate and distortion on the validation split", 12)
    x, y = "rate: KL in nats per sample", "distortion: squared error per sample"
    axes = chart_axes(figure, (0.95, 0.72, 6.2, 3.85), x=x, y=y, grid="both")
    known = [point for point in points if np.isfinite([point.rate, point.distortion]).all()]
    hues = _hues([point.annealing for point in points])
    rates = [point.rate for point in known]
    distortions = [point.distortion for point in known]
    annealings = [point.annealing for point in known]
    if known:
        order = list(hues)
        sns.scatterplot(
            x=rates, y=distortions, hue=annealings, style=annealings, hue_order=order,
            style_order=order, palette=hues, s=64, ax=axes, zorder=3,
        )  # fmt: skip
    for annealing, color in hues.items() if joined else ():
        group = [point for point in known if point.annealing == annealing]
        axes.plot(*_mean_per_beta(group), color=color, linewidth=1.1, alpha=0.55, zorder=2)
    axes.ticklabel_format(useOffset=False)
    if is_wide(rates):
        scale_axis(axes, "x", rates)
    if is_wide(distortions):
        scale_axis(axes, "y", distortions)
    axes.margins(0.12)
    axes.autoscale_view()
    _iso_elbo(axes, known)
    _beta_labels(axes, known, hues)
    axes.set(xlabel=x, ylabel=y)
    if known:
        legend_above(axes)
    return figure


def _hues(annealings: Sequence[str]) -> dict[str, Any]:
    names = sorted(set(annealings))
    return dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True))


def _mean_per_beta(points: Sequence[RatePoint]) -> tuple[list[float], list[float]]:
    """Rates and distortions, averaged over the runs of each beta, in the order of beta."""
    groups: dict[float, list[RatePoint]] = {}
    for point in sorted(points, key=lambda point: point.beta):
        groups.setdefault(point.beta, []).append(point)
    return (
        [float(np.mean([point.rate for point in group])) for group in groups.values()],
        [float(np.mean([point.distortion for point in group])) for group in groups.values()],
    )


def _iso_elbo(axes: Axes, points: Sequence[RatePoint]) -> None:
    """Lines of equal distortion + rate."""
    if "log" in (axes.get_xscale(), axes.get_yscale()):
        return
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    steepness = (right - left) / (top - bottom) if points else 0.0
    if not 0.08 < steepness < 12:
        return
    rate, distortion = np.meshgrid(np.linspace(left, right, 200), np.linspace(bottom, top, 200))
    levels = MaxNLocator(6).tick_values(left + bottom, right + top)
    digits = max(0, -int(np.floor(np.log10(levels[1] - levels[0]))))
    lines = axes.contour(
        rate, distortion, rate + distortion, levels=levels, colors=[MUTED], linewidths=0.7,
        linestyles="dashed", alpha=0.7, zorder=1,
    )  # fmt: skip
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.clabel(lines, fontsize=6.5, fmt=lambda level: f"−ELBO {level:,.{digits}f}")


def _beta_labels(axes: Axes, points: Sequence[RatePoint], hues: Mapping[str, Any]) -> None:
    """Write beta beside each point, at the first of eight places without overlap."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]  # Agg has one
    at = [axes.transData.transform((point.rate, point.distortion)) for point in points]
    pixels = figure.dpi / 72
    taken: list[Any] = []
    for point in points:
        for dx, dy in ((7, 5), (7, -11), (-7, 5), (-7, -11), (9, -3), (-9, -3), (0, 9), (0, -15)):
            text = axes.annotate(
                f"β {point.beta:g}", (point.rate, point.distortion), (dx, dy),
                textcoords="offset points", color=hues[point.annealing], zorder=4,
                ha="left" if dx > 0 else "right" if dx < 0 else "center",
                path_effects=[patheffects.withStroke(linewidth=2, foreground="white")],
            )  # fmt: skip
            box = text.get_window_extent(renderer)
            hidden = any(box.padded(3 * pixels).contains(*place) for place in at)
            if not hidden and not any(box.overlaps(other) for other in taken):
                break
            text.remove()
        else:
            continue  # no room; the table contains beta
        taken.append(box)


# ---------------------------------------------------------------- curves


@styled
def comparison_curves(runs: Sequence[RunCurves]) -> Figure:
    """Validation distortion and rate per sample, and beta, over the epochs of every run.

    Up to 12 runs have a hue each and a legend; more are coloured by their target beta. Runs of
    one annealing schedule share a dash.
    """
    named = len(runs) <= MOST_NAMED
    below = 0.2 + 0.2 * -(-len(runs) // 3) if named else 0.85
    figure = new_figure(10.8, 3.6 + below)
    write_title(figure, "Learning curves, validation split", 12)
    betas = sorted({run.beta for run in runs})
    if named:
        colors = list(sns.husl_palette(len(runs), l=0.55, s=0.9))
    else:
        ramp = _ramp(len(betas))
        colors = [ramp[betas.index(run.beta)] for run in runs]
    schedules = sorted({run.annealing for run in runs})
    panels = (
        ("Distortion", "squared error per sample", "distortion"),
        ("Rate", "KL in nats per sample", "rate"),
        ("Beta", "", "betas"),
    )
    for column, (title, unit, field) in enumerate(panels):
        axes = chart_axes(figure, (0.85 + 3.5 * column, 0.78, 2.75, 2.3), title, "epoch", unit)
        for run, color in zip(runs, colors, strict=True):
            axes.plot(
                run.epochs, getattr(run, field), color=color, alpha=0.9 if named else 0.65,
                linestyle=DASHES[schedules.index(run.annealing) % len(DASHES)],
                label=drawable(run.name, 44),
                drawstyle="steps-post" if field == "betas" else "default",
            )  # fmt: skip
        if field == "betas":
            _beta_scale(axes, betas)
        else:
            scale_axis(axes, "y", [value for run in runs for value in getattr(run, field)])
        count_axis(axes.xaxis)
        axes.margins(x=0.02)
    if named:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower left", bbox_to_anchor=(0.03, 0.01), ncols=3,
                      handlelength=2.6)  # fmt: skip
    else:
        _beta_bar(figure, betas, ramp, 3.1 + below)
    return figure


def _beta_scale(axes: Axes, targets: Sequence[float]) -> None:
    """From 0; logarithmic above the smallest target where the targets span a wide range."""
    positive = [target for target in targets if target > 0]
    if is_wide(positive):
        axes.set_yscale("symlog", linthresh=min(positive))
        axes.yaxis.set_major_locator(FixedLocator([0, *positive]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom=0)


def _beta_bar(figure: Figure, betas: Sequence[float], ramp: npt.NDArray[Any], top: float) -> None:
    """A colour bar of the target betas, for runs too many for a legend."""
    axes = place(figure, 3.4, top, 4.0, 0.12)
    norm = BoundaryNorm(np.arange(len(betas) + 1) - 0.5, len(betas))
    colors = ScalarMappable(norm, ListedColormap(ramp))
    bar = figure.colorbar(colors, cax=axes, orientation="horizontal", ticks=range(len(betas)))
    bar.set_ticklabels([f"{beta:g}" for beta in betas])
    bare_bar(bar)
    axes.set_title("target beta", loc="center")


# ---------------------------------------------------------------- schedules


class Schedule(NamedTuple):
    """Beta of epochs 0, 1, ... under one annealing schedule."""

    annealing: str
    target: float
    betas: Sequence[float]


@styled
def annealing_figure(schedules: Sequence[Schedule]) -> Figure:
    """Beta of every epoch, constant within an epoch, a panel for each kind of annealing."""
    kinds = list(dict.fromkeys(schedule.annealing for schedule in schedules))
    targets = sorted({schedule.target for schedule in schedules})
    wide = max(2.9 * len(kinds) + 0.2, 4.0)
    figure = new_figure(wide, 3.1)
    write_title(figure, "Annealing: beta in each epoch", 12)
    colors = dict(zip(targets, _ramp(len(targets)), strict=True))
    for column, kind in enumerate(kinds):
        inches = (0.7 + 2.9 * column, 0.78, 2.2, 1.75)
        axes = chart_axes(figure, inches, drawable(kind, 30), "epoch", "" if column else "beta")
        for _, target, betas in (s for s in schedules if s.annealing == kind):
            edges = np.arange(len(betas) + 1)
            axes.stairs(betas, edges, baseline=None, color=colors[target], linewidth=1.7,
                        clip_on=False)  # fmt: skip
        _beta_scale(axes, targets)
        axes.set_ylim(top=1.08 * (max(targets) or 1))
        count_axis(axes.xaxis)
    return figure


def _ramp(count: int) -> npt.NDArray[Any]:
    """Colours from small to large, (count, 4)."""
    ramp: npt.NDArray[Any] = SEQUENTIAL(np.linspace(0, 0.95, count))
    return ramp

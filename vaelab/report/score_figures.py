"""Charts of anomaly scores: their distribution and their ROC curve."""

import numpy as np
import numpy.typing as npt
import seaborn as sns  # type: ignore[import-untyped, unused-ignore]
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from vaelab.report.axes import chart_axes, single_chart
from vaelab.report.canvas import Array, drawable, new_figure, write_title
from vaelab.report.style import BLUE, DASHED, MUTED, ORANGE, styled


@styled
def roc_curve_figure(
    false_positive_rate: npt.ArrayLike, true_positive_rate: npt.ArrayLike, auroc: float
) -> Figure:
    """The ROC curve, both rates (T,) in [0, 1] and ascending, with its area named."""
    figure = new_figure(4.4, 4.6)
    write_title(figure, f"ROC: area under the curve {auroc:.3f}")
    x = "false positive rate (1 − specificity)"
    y = "true positive rate (sensitivity)"
    axes = chart_axes(figure, (0.68, 0.56, 3.5, 3.5), x=x, y=y, grid="both")
    rates = np.asarray(false_positive_rate, float), np.asarray(true_positive_rate, float)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=DASHED)
    axes.fill_between(*rates, color=BLUE, alpha=0.12, linewidth=0)
    axes.plot(*rates, color=BLUE, linewidth=1.8, solid_joinstyle="round", clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.text(0.82, 0.795, "chance", color=MUTED, rotation=45, ha="center", va="top")
    return figure


@styled
def score_histogram(scores: npt.ArrayLike, labels: npt.ArrayLike, score_name: str) -> Figure:
    """Histograms of the scores of normal (label 0) and sick (label 1) samples.

    Both share up to 40 bins over percentiles 0.5 to 99.5 of all finite scores, so that a single
    extreme score does not flatten the rest; scores beyond are counted in the outermost bin. Heights
    are shares of the class, since classes differ in size; dashed lines are medians.
    """
    values, classes = np.asarray(scores, float).ravel(), np.asarray(labels).ravel()
    assert values.shape == classes.shape, (values.shape, classes.shape)
    known = np.isfinite(values)
    left_out = f" ({int((~known).sum())} not finite, left out)" if not known.all() else ""
    values, classes = values[known], classes[known]
    title, x = f"Anomaly scores: {score_name}{left_out}", drawable(score_name, 60)
    figure, axes = single_chart(
        6.2, 3.7, title, f"{x}  (larger is more abnormal)", "share of the class"
    )
    edges = _bin_edges(values, bins=int(np.clip(2 * np.sqrt(values.size), 10, 40)))
    values = np.clip(values, edges[0], edges[-1])
    names, colors = {}, {}
    for label, name, color in ((0, "normal", BLUE), (1, "sick", ORANGE)):
        of_class = values[classes == label]
        if of_class.size:
            names[label] = f"{name} (n = {of_class.size:,})"
            colors[names[label]] = color
            axes.axvline(float(np.median(of_class)), color=color, linewidth=1.1, linestyle=DASHED)
    if names:
        sns.histplot(
            x=values, hue=[names[label] for label in classes.tolist()], hue_order=list(colors),
            palette=colors, bins=edges.tolist(), stat="proportion", common_norm=False,
            element="step", alpha=0.28, linewidth=1.4, ax=axes,
        )  # fmt: skip
        sns.move_legend(axes, "lower right", bbox_to_anchor=(1, 1), ncols=2, title=None)
        axes.set(ylabel="share of the class")
    axes.set_xlim(edges[0], edges[-1])
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    return figure


def _bin_edges(values: Array, bins: int) -> Array:
    if not values.size:
        return np.linspace(0, 1, bins + 1)
    low, high = np.percentile(values, (0.5, 99.5))
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # all equal
        room = max(0.5, 1e-3 * abs(low))
        low, high = low - room, high + room
    return np.linspace(low, high, bins + 1)

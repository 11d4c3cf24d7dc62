"""The chart of a hyperparameter search: values of its trials, importance of its parameters."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from vaelab.report.axes import chart_axes, count_axis, is_wide, legend_above, row_axes, scale_axis
from vaelab.report.canvas import drawable, new_figure, write_title
from vaelab.report.style import BLUE, MUTED, ORANGE, styled

MOST_BARS: Final = 10


@styled
def search_figure(
    values: Mapping[int, float],
    failed: Sequence[int],
    importances: Mapping[str, float],
    monitor: str,
) -> Figure:
    """Value of each trial with the best so far, beside the importance of each parameter.

    Args:
        values: trial → its value of ``monitor``; smaller is better.
        failed: trials without a value, marked on the axis.
        importances: parameter → share in [0, 1]; without any there is no second panel.
        monitor: the logged value that the search minimises.
    """
    figure = new_figure(10.4 if importances else 6.2, 3.9)
    write_title(figure, "Hyperparameter search", 12)
    y = drawable(monitor, 40)
    axes = chart_axes(figure, (0.95, 0.85, 4.9, 2.4), x="trial", y=y)
    trials = sorted(values)
    reached = [values[trial] for trial in trials]
    best = np.minimum.accumulate(np.asarray(reached, float))
    axes.step(trials, best, where="post", color=ORANGE, label="best so far")
    axes.plot(trials, reached, "o", color=BLUE, label="trial")
    if failed:
        floor = axes.get_xaxis_transform()
        axes.plot(failed, [0.03] * len(failed), "x", color=MUTED, transform=floor, label="failed")
    if is_wide(reached):
        scale_axis(axes, "y", reached)
    else:
        axes.ticklabel_format(axis="y", useOffset=False)
    count_axis(axes.xaxis)
    legend_above(axes)
    if importances:
        shown = sorted(importances.items(), key=lambda item: -item[1])[:MOST_BARS]
        names = [drawable(name, 24) for name, _ in shown]
        height = min(2.4, 0.6 * len(shown))
        bars = row_axes(figure, (7.9, 0.85, 2.2, height), names, "share")
        bars.barh(range(len(shown)), [share for _, share in shown], color=BLUE, height=0.55)
        bars.set(xlim=(0, 1), title="Importance (PED-ANOVA)")
    return figure

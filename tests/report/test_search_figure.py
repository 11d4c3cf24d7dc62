"""The figure of a hyperparameter search."""

from __future__ import annotations

from pathlib import Path

from vaelab.report.canvas import save_figure
from vaelab.report.search_figure import search_figure


def test_the_best_so_far_never_rises_and_failures_are_marked_where_they_were():
    axes = search_figure({0: 5.0, 2: 3.0, 3: 4.0}, [1], {}, "val/neg_elbo").axes[0]
    best, trials, failed = axes.lines
    assert list(best.get_ydata()) == [5, 3, 3]
    assert list(trials.get_xdata()) == [0, 2, 3]
    assert list(failed.get_xdata()) == [1]
    assert axes.get_ylabel() == "val/neg_elbo"


def test_the_most_important_parameter_is_at_the_top(tmp_path: Path):
    figure = search_figure({0: 1.0, 1: 900.0}, [], {"lr": 0.9, "z_dim": 0.1}, "value")
    bars = figure.axes[1]
    assert bars.yaxis_inverted()  # the first row is on top
    assert [label.get_text() for label in bars.get_yticklabels()] == ["lr", "z_dim"]
    assert [bar.get_width() for bar in bars.patches] == [0.9, 0.1]
    assert figure.axes[0].get_yscale() == "log"
    save_figure(figure, tmp_path / "a.png", dpi=40)

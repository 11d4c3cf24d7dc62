"""Figures and page of a comparison of runs."""

from __future__ import annotations

import datetime as dt
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex

from vaelab.report.canvas import save_figure
from vaelab.report.comparison_figures import (
    MOST_NAMED,
    RatePoint,
    RunCurves,
    Schedule,
    annealing_figure,
    comparison_curves,
    rate_distortion_figure,
)
from vaelab.report.comparison_page import Cell, Heading, Winner, write_comparison

from .browser import Browser
from .pages import HOSTILE, Page

POINTS = [
    RatePoint("a", "linear", 0.5, 8.0, 20.0),
    RatePoint("b", "linear", 4.0, 2.0, 28.0),
    RatePoint("c", "constant", 0.5, 7.0, 21.0),
]


def curves(count: int, **changes: Any) -> list[RunCurves]:
    run = RunCurves("run", "linear", 1.0, [0, 1, 2], [9.0, 5.0, 4.0], [1.0, 2.0, 3.0], [0, 0.5, 1])
    return [run._replace(name=f"run {n}", beta=float(n), **changes) for n in range(count)]


# ---------------------------------------------------------------- rate and distortion


def _dots(figure: Any) -> list[list[float]]:
    (dots,) = (c for c in figure.axes[0].collections if isinstance(c, PathCollection))
    return np.asarray(dots.get_offsets()).tolist()


def _lines(figure: Any) -> list[Any]:
    return [np.asarray(line.get_xydata()).tolist() for line in figure.axes[0].lines]


def _beta_labels(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts if text.get_text().startswith("β")]


def test_each_run_is_a_point_at_its_rate_and_distortion_labelled_with_beta():
    figure = rate_distortion_figure(POINTS)
    assert _dots(figure) == [[8, 20], [2, 28], [7, 21]]
    assert _beta_labels(figure) == ["β 0.5", "β 4", "β 0.5"]
    legend = figure.axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["constant", "linear"]


def test_runs_of_one_schedule_are_joined_by_beta_and_repeats_by_their_mean():
    repeat = RatePoint("d", "linear", 4.0, 4.0, 26.0)
    points = [*POINTS, repeat]
    assert [[8, 20], [3, 27]] in _lines(rate_distortion_figure(points))
    assert not any(len(line) > 1 for line in _lines(rate_distortion_figure(points, joined=False)))


def test_dashed_lines_join_equal_elbos():
    figure = rate_distortion_figure(POINTS)
    (lines,) = (c for c in figure.axes[0].collections if hasattr(c, "levels"))
    for level, segments in zip(lines.levels, lines.allsegs, strict=True):
        for segment in segments:
            np.testing.assert_allclose(segment.sum(axis=1), level)


def test_wide_ranges_are_logarithmic_and_have_no_elbo_lines():
    figure = rate_distortion_figure([*POINTS, RatePoint("e", "linear", 9.0, 0.01, 29.0)])
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    assert not any(hasattr(collection, "levels") for collection in axes.collections)


def test_labels_of_runs_that_coincide_do_not_lie_on_each_other(tmp_path: Path):
    near = [RatePoint(str(n), "linear", n / 7, 5.0 + n / 50, 20.0) for n in range(4)]
    figure = rate_distortion_figure([*near, *POINTS])
    renderer = figure.canvas.get_renderer()
    texts = [text for text in figure.axes[0].texts if text.get_text().startswith("β")]
    boxes = [text.get_window_extent(renderer) for text in texts]
    assert len(boxes) >= 5
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])
    save_figure(figure, tmp_path / "a.png", dpi=40)


@pytest.mark.parametrize(
    "points",
    [
        [],
        POINTS[:1],
        [POINTS[0]._replace(rate=0.0), POINTS[1]._replace(rate=0.0)],
        [POINTS[0], POINTS[1]._replace(distortion=float("nan"))],
        [POINTS[0]._replace(annealing="$x_$"), POINTS[1]],
    ],
    ids=["none", "one", "collapsed", "diverged", "odd name"],
)
def test_few_or_odd_runs_are_drawn(tmp_path: Path, points: list[RatePoint]):
    save_figure(rate_distortion_figure(points), tmp_path / "a.png", dpi=40)


# ---------------------------------------------------------------- curves


def test_every_run_has_a_line_in_each_panel_and_a_hue_of_its_own():
    figure = comparison_curves(curves(MOST_NAMED))
    distortion, rate, beta = figure.axes
    assert [len(axes.lines) for axes in figure.axes] == [MOST_NAMED] * 3
    assert distortion.lines[0].get_ydata().tolist() == [9, 5, 4]
    assert rate.lines[0].get_ydata().tolist() == [1, 2, 3]
    assert beta.lines[0].get_ydata().tolist() == [0, 0.5, 1]
    assert len({to_hex(line.get_color()) for line in distortion.lines}) == MOST_NAMED
    (legend,) = figure.legends
    assert len(legend.get_texts()) == MOST_NAMED


def test_too_many_runs_to_name_are_coloured_by_beta():
    runs = curves(MOST_NAMED + 1)
    figure = comparison_curves([*runs, runs[0]._replace(name="again")])
    assert not figure.legends
    lines = figure.axes[0].lines
    assert lines[0].get_color().tolist() == lines[-1].get_color().tolist()
    assert lines[0].get_color().tolist() != lines[1].get_color().tolist()
    assert figure.axes[-1].get_title("center") == "target beta"


def test_runs_of_one_schedule_share_a_dash():
    figure = comparison_curves([*curves(2), *curves(1, annealing="cyclical")])
    styles = [line.get_linestyle() for line in figure.axes[0].lines]
    assert styles[0] == styles[1] != styles[2]


def test_gaps_and_zero_betas_are_drawn(tmp_path: Path):
    gap = float("nan")
    runs = curves(3, rate=[gap, gap, gap], distortion=[1.0, gap, 2.0])
    save_figure(comparison_curves(runs), tmp_path / "a.png", dpi=40)


# ---------------------------------------------------------------- schedules


def test_a_schedule_stands_still_within_an_epoch_in_the_panel_of_its_kind():
    figure = annealing_figure(
        [Schedule("linear", 2.0, [0, 1, 2]), Schedule("constant", 0.0, [0.0, 0.0])]
    )
    assert [axes.get_title("left") for axes in figure.axes] == ["linear", "constant"]
    (steps,) = figure.axes[0].patches
    assert steps.get_data().values.tolist() == [0, 1, 2]
    assert steps.get_data().edges.tolist() == [0, 1, 2, 3]


# ---------------------------------------------------------------- the page


def write(path: Path, **changes: Any) -> Path:
    content: dict[str, Any] = {
        "title": "a sweep",
        "summary": {"Runs": "3"},
        "warnings": [],
        "headings": [Heading("run", False), Heading("beta", True, "target"), Heading("s", False)],
        "rows": [
            [Cell("run 2", "run 2"), Cell("10", "10.0", best=True), Cell("done", "done")],
            [Cell("run 10", "run 10"), Cell("9", "9.0"), Cell("", "")],
            [Cell(HOSTILE, HOSTILE), Cell("", ""), Cell("failed", "failed")],
        ],
        "winners": [Winner("lowest", "run 2", "10")],
        "figures": {},
        "left_out": {HOSTILE: HOSTILE},
        "date": dt.date(2025, 1, 2),
    }
    return write_comparison(path / "comparison.html", **(content | changes))


def test_the_page_is_one_file_without_addresses(tmp_path: Path):
    png = save_figure(annealing_figure([Schedule("linear", 1.0, [0, 1])]), tmp_path / "a.png")
    page = Page(write(tmp_path, figures={"Annealing": png.read_bytes()}))
    assert len(page.addresses()) == 2
    assert all(address.startswith("data:") for address in page.addresses())


def test_markup_in_names_reasons_and_warnings_is_inert(tmp_path: Path):
    page = Page(write(tmp_path, title=HOSTILE, warnings=[HOSTILE], summary={HOSTILE: HOSTILE}))
    assert len(page.all("script")) == 1
    assert not [image for image in page.all("img") if image.get("src") == "x"]
    assert all("onerror" not in attributes for _, attributes in page.elements)


def test_a_name_with_undecodable_bytes_is_written(tmp_path: Path):
    name = os.fsdecode(b"caf\xe9")
    assert "caf?" in write(tmp_path, left_out={name: "failed"}).read_text(encoding="utf-8")


def test_sections_without_content_are_left_out(tmp_path: Path):
    text = write(tmp_path, winners=[], left_out={}).read_text(encoding="utf-8")
    assert "Best run" not in text
    assert "table only" not in text
    assert re.search(r'class="number best">10<', text)


ORDER = "return [...document.querySelectorAll('#runs tbody th')].map(h => h.textContent)"
CLICK = "document.querySelectorAll('#runs thead button')[{}].click();"


def test_a_browser_opens_the_page_and_sorts_it(browser: Browser, tmp_path: Path):
    browser.open(write(tmp_path))
    assert browser.run(CLICK.format(1) + ORDER) == ["run 10", "run 2", HOSTILE]  # by number
    assert browser.run(CLICK.format(1) + ORDER) == ["run 2", "run 10", HOSTILE]  # unknown last
    names = browser.run(CLICK.format(0) + ORDER)
    assert names.index("run 2") < names.index("run 10")
    assert browser.complaints() == []
    assert browser.run("return window.hacked === undefined")
    assert all(url.startswith(("file:", "data:")) for url in browser.requests())

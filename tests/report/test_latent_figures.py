"""Figures of a latent space."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from vaelab.report.canvas import save_figure
from vaelab.report.latent_figures import (
    Coloring,
    Embedding,
    decoded_grid,
    embedding_figure,
    principal_components,
    trajectory_figure,
)


def texts(figure: Figure) -> list[str]:
    """Title, names of panels, and legends."""
    legends = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    entries = [entry for legend in legends for entry in legend.get_texts()]
    titles = [axes.get_title("left") for axes in figure.axes]
    return [*(text.get_text() for text in [*figure.texts, *entries]), *titles]


def test_principal_components_explain_what_they_should():
    # Along (3, 4) / 5 with variance 9 : 1 across; a third direction never moves.
    along, across = np.array([3, 4, 0]) / 5, np.array([-4, 3, 0]) / 5
    signs = np.array([(1, 1), (1, -1), (-1, 1), (-1, -1)])
    mu = signs @ np.stack([3 * along, across]) + 7
    plane = principal_components(mu)
    assert plane.axis_names == ("PC 1 (90.0 % of variance)", "PC 2 (10.0 % of variance)")
    # The largest loadings, 4/5 of the first and -4/5 of the second, count as positive.
    np.testing.assert_allclose(plane.points, signs * [3, -1], atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 1), (5, 1), (2, 8)])
def test_principal_components_of_few_are_padded(shape: tuple[int, int]):
    mu = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    plane = principal_components(mu)
    assert plane.points.shape == (shape[0], 2)
    assert np.allclose(plane.points[:, 1], 0)
    assert plane.axis_names[1] == "PC 2 (0.0 % of variance)"


def test_latents_that_are_all_alike_are_drawn():
    plane = principal_components(np.ones((4, 3)))
    assert (plane.points == 0).all()
    embedding_figure(plane, [Coloring("split", np.array(["a"] * 4))], "t").canvas.draw()


def test_each_colouring_has_a_panel_with_a_legend_or_a_bar(tmp_path):
    random = np.random.default_rng(0)
    plane = Embedding(random.normal(size=(12, 2)), ("x", "y"))
    colorings = [
        Coloring("split", np.array(["train"] * 8 + ["val"] * 4)),
        Coloring("time point", np.arange(12) % 3),
        Coloring("volume (mm³)", np.array([np.nan, *np.geomspace(1e3, 1e5, 11)])),
        Coloring("score", random.normal(size=12)),
    ]
    figure = embedding_figure(plane, colorings, "title $x$")
    shown = texts(figure)
    for text in ("title $x$", "split", "train\nn = 8", "time point", "2\nn = 4", "volume (mm³)"):
        assert text in shown
    assert len(figure.axes) == 4 + 2
    assert [figure.axes[place].get_yscale() for place in (3, 5)] == ["log", "linear"]
    drawn = [sum(len(c.get_offsets()) for c in axes.collections) for axes in figure.axes[:3]]
    assert drawn == [12, 12, 12]  # the one of unknown volume too
    save_figure(figure, tmp_path / "a.png")


def test_a_trajectory_has_an_arrow_for_each_step():
    plane = Embedding(np.random.default_rng(0).normal(size=(6, 2)), ("x", "y"))
    figure = trajectory_figure(plane, [[0, 3, 1], [4, 2]], "title")
    arrows = figure.axes[0].texts
    starts = [tuple(arrow.xyann) for arrow in arrows]  # type: ignore[attr-defined]
    ends = [tuple(arrow.xy) for arrow in arrows]  # type: ignore[attr-defined]
    at = [tuple(point) for point in plane.points]
    assert list(zip(starts, ends, strict=True)) == [
        (at[0], at[3]), (at[3], at[1]), (at[4], at[2]),
    ]  # fmt: skip
    figure.canvas.draw()


def test_a_grid_shows_every_picture_on_the_scale_of_its_row():
    pictures = np.arange(2 * 3 * 4 * 5, dtype=float).reshape(2, 3, 4, 5)
    changes = np.abs(pictures[:, -1] - pictures[:, 0])
    figure = decoded_grid(pictures, ["a", "b"], ["0", "1", "2"], "title", changes=changes)
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert len(images) == 2 * 3 + 2
    for row in range(2):
        own = images[4 * row : 4 * row + 3]
        assert len({image.get_clim() for image in own}) == 1
        for column in range(3):
            np.testing.assert_array_equal(own[column].get_array(), pictures[row, column])
    assert images[0].get_clim() != images[4].get_clim()
    assert images[3].get_clim() == images[7].get_clim() == (0, pytest.approx(40))
    fixed = decoded_grid(pictures, ["", ""], ["0", "1", "2"], "title", window=(0, 1))
    assert {axes.images[0].get_clim() for axes in fixed.axes} == {(0, 1)}

"""Report cards: a common scale, the right slice, any name."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

from vaelab.errors import UserError
from vaelab.report.canvas import save_figure
from vaelab.report.card import OUTLINE, overlay, report_card, report_card_3d, tumour_slice
from vaelab.report.style import HEAT

SOURCE = "99.5th percentile of healthy images"


def _card(
    heatmaps: np.ndarray,
    ids: list[str] | None = None,
    scale: float = 1.0,
    masks: np.ndarray | None = None,
) -> Figure:
    count = len(heatmaps)
    grey = np.full(heatmaps.shape, 0.5)
    names = ids or [f"id{n}" for n in range(count)]
    return report_card(grey, grey, heatmaps, scale, masks, names, [0.5] * count, "Card", SOURCE)


def _card_3d(volumes: np.ndarray, segs: np.ndarray | None, score: float = 1.0) -> Figure:
    count = len(volumes)
    names = [f"BraTS-MEN-{n:05d}-000" for n in range(count)]
    return report_card_3d(
        volumes, volumes, 0 * volumes, 1.0, segs, names, [score] * count, "t1c", "Card", SOURCE
    )


def _drawn(figure: Figure, panel: int) -> np.ndarray:
    return np.asarray(figure.axes[panel].images[0].get_array())


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


# ---------------------------------------------------------------- overlay


def test_an_overlay_without_heat_is_the_grey_image_itself():
    image = np.random.default_rng(0).random((6, 5))
    grey = np.rint(255 * image).astype(np.uint8)
    rgb = overlay(image, np.zeros((6, 5)), 0.1)
    assert rgb.dtype == np.uint8
    np.testing.assert_array_equal(rgb, np.stack([grey] * 3, axis=-1))


def test_heat_at_the_scale_is_blended_with_full_alpha_and_saturates_above():
    image = np.full((1, 3), 0.5)
    rgb = overlay(image, np.array([[2.0, 4.0, np.nan]]), heat_scale=2.0, alpha=0.6)
    expected = np.rint(255 * (0.4 * 0.5 + 0.6 * np.array(HEAT(1.0)[:3])))
    np.testing.assert_array_equal(rgb[0], [expected] * 3)


def test_opacity_grows_in_proportion_to_heat():
    half = overlay(np.zeros((1, 1)), np.full((1, 1), 0.5), heat_scale=1.0, alpha=0.6)
    np.testing.assert_array_equal(half[0, 0], np.rint(255 * 0.3 * np.array(HEAT(0.5)[:3])))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_not_positive_is_refused(scale: float):
    with pytest.raises(UserError, match="heat_scale="):
        overlay(np.zeros((2, 2)), np.zeros((2, 2)), scale)


# ---------------------------------------------------------------- 2D


@pytest.mark.parametrize("count", [1, 5, 8])
def test_a_card_has_three_rows_a_column_per_subject_and_one_colour_bar(count: int):
    figure = _card(np.zeros((count, 8, 8)))
    *panels, bar = figure.axes
    assert len(panels) == 3 * count
    assert len({round(axes.get_position().y0, 6) for axes in panels}) == 3
    assert len({round(axes.get_position().x0, 6) for axes in panels}) == count
    assert not bar.images
    assert any(SOURCE in text.replace("\n", " ") for text in _texts(figure))


def test_the_same_heat_has_the_same_colour_whatever_the_other_subject_has():
    mild = np.full((1, 8, 8), 0.2)
    beside_mild = _card(np.concatenate([mild, mild]))
    beside_wild = _card(np.concatenate([mild, 1000 * mild]))
    heat_row = 2 * 2
    np.testing.assert_array_equal(_drawn(beside_mild, heat_row), _drawn(beside_wild, heat_row))


def test_images_are_shown_between_black_at_zero_and_white_at_one():
    figure = _card(np.zeros((2, 8, 8)))
    assert {axes.images[0].get_clim() for axes in figure.axes[:4]} == {(0, 1)}


def test_an_image_keeps_its_shape():
    figure = _card(np.zeros((2, 8, 16)))
    box = figure.axes[0].get_position()
    width, height = figure.get_size_inches()
    assert (box.width * width) / (box.height * height) == pytest.approx(16 / 8)


@pytest.mark.parametrize(
    "name",
    ["a$b", r"$\frac{$", "under_score^2", "胸部レントゲン", "bad\udcffbyte", "a\nb", "", "M" * 300],
)
def test_any_file_name_can_stand_in_a_title(tmp_path: Path, name: str):
    figure = _card(np.zeros((2, 8, 8)), ids=[name, name])
    save_figure(figure, tmp_path / "card.png", dpi=40)
    assert max(len(line) for line in _texts(figure)[4:8]) <= 24 + len("score")


def test_a_dollar_is_shown_as_a_dollar():
    assert "a$b$c" in _texts(_card(np.zeros((1, 8, 8)), ids=["a$b$c"]))


@pytest.mark.parametrize("count", [0, 9])
def test_too_few_or_too_many_subjects_are_refused(count: int):
    with pytest.raises(UserError, match=f"{count} subjects.*1 and 8"):
        _card(np.zeros((count, 8, 8)))


# ---------------------------------------------------------------- 3D


def test_the_slice_shown_is_the_one_with_most_tumour():
    volume = np.broadcast_to(np.arange(10.0), (1, 12, 14, 10)).copy()  # brightness is the slice
    seg = np.zeros((1, 12, 14, 10), int)
    seg[0, 5, 5, 1:9] = 1
    seg[0, 4:7, 4:7, 3] = 2
    assert tumour_slice(seg[0]) == 3
    figure = _card_3d(volume, seg)
    low, high = np.percentile(volume, (0.5, 99.9))
    np.testing.assert_allclose(_drawn(figure, 0), (3 - low) / (high - low))
    assert "score 1  ·  slice 3" in _texts(figure)


def test_a_large_score_is_written_to_the_unit():
    figure = _card_3d(np.random.default_rng(0).random((1, 12, 14, 10)), None, score=19402.4)
    assert "score 19,402  ·  slice 5" in _texts(figure)


def test_a_subject_without_tumour_shows_its_centre_without_outline():
    assert tumour_slice(np.zeros((4, 4, 10), int)) == 5
    volume = np.random.default_rng(0).random((1, 12, 14, 10))
    for segs in (None, np.zeros((1, 12, 14, 10), int)):
        figure = _card_3d(volume, segs)
        assert "score 1  ·  slice 5" in _texts(figure)
        assert not any(axes.findobj(ContourSet) for axes in figure.axes)


def test_the_tumour_is_outlined_in_every_row_where_it_is_drawn(tmp_path: Path):
    volume = np.random.default_rng(0).random((1, 12, 14, 10))
    seg = np.zeros((1, 12, 14, 10), int)
    seg[0, 9:11, 11:13, 6] = 3  # right and anterior: upper left on the page
    figure = _card_3d(volume, seg)
    for axes in figure.axes[:3]:
        (outline,) = axes.findobj(ContourSet)
        assert tuple(outline.get_edgecolor()[0][:3]) == to_rgb(OUTLINE)
        (path,) = outline.get_paths()
        # x = 9, 10 of 12 mirror to columns 2, 1; y = 11, 12 of 14 to rows 2, 1; half a voxel round
        assert path.vertices.min(axis=0).tolist() == [0.5, 0.5]
        assert path.vertices.max(axis=0).tolist() == [2.5, 2.5]
    save_figure(figure, tmp_path / "card.png", dpi=40)


def test_a_lesion_of_an_image_is_outlined_where_it_is():
    masks = np.zeros((1, 12, 14), int)
    masks[0, 3:5, 6:9] = 1
    for axes in _card(np.zeros((1, 12, 14)), masks=masks).axes[:3]:
        ((path,),) = (outline.get_paths() for outline in axes.findobj(ContourSet))
        # columns 6 to 8, rows 3 and 4; half a pixel round
        assert path.vertices.min(axis=0).tolist() == [5.5, 2.5]
        assert path.vertices.max(axis=0).tolist() == [8.5, 4.5]


def test_a_volume_is_shown_with_anterior_at_the_top():
    volume = np.zeros((1, 12, 14, 10))
    volume[0, 11, 13, 5] = 1
    figure = _card_3d(volume, None)
    assert _drawn(figure, 0).shape == (14, 12)
    assert _drawn(figure, 0).argmax() == 0
    assert [text.get_text() for text in figure.axes[0].texts] == ["A", "P", "R", "L"]


def test_a_slice_that_is_all_tumour_needs_no_outline(tmp_path: Path):
    volume = np.random.default_rng(0).random((1, 12, 14, 10))
    save_figure(_card_3d(volume, np.ones(volume.shape, int)), tmp_path / "card.png", dpi=40)

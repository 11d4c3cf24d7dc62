"""Figures: orientation, scales, files written whole, no pyplot."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from vaelab.errors import UserError
from vaelab.report.canvas import drawable, new_figure, save_figure
from vaelab.report.score_figures import roc_curve_figure, score_histogram
from vaelab.report.slices import axial, coronal, grey_window, reconstruction_slices, sagittal
from vaelab.report.training_figures import kl_per_unit, learning_curves

RIGHT, ANTERIOR, SUPERIOR = 9, 11, 13  # the last index of each RAS axis
CENTRE = (5, 6, 7)


def _voxel(x: int, y: int, z: int) -> np.ndarray:
    """A dark volume (10, 12, 14) with one bright voxel."""
    volume = np.zeros((10, 12, 14), np.float32)
    volume[x, y, z] = 1
    return volume


def _brightest(picture: np.ndarray) -> tuple[int, int]:
    row, column = np.unravel_index(np.argmax(picture), picture.shape)
    return int(row), int(column)


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


# ---------------------------------------------------------------- the right way up


def test_axial_shows_anterior_at_the_top_and_the_patients_right_on_the_left():
    assert axial(_voxel(5, ANTERIOR, 7), 7).shape == (12, 10)
    assert _brightest(axial(_voxel(5, ANTERIOR, 7), 7))[0] == 0
    assert _brightest(axial(_voxel(RIGHT, 6, 7), 7))[1] == 0


def test_coronal_shows_superior_at_the_top_and_the_patients_right_on_the_left():
    assert _brightest(coronal(_voxel(5, 6, SUPERIOR), 6))[0] == 0
    assert _brightest(coronal(_voxel(RIGHT, 6, 7), 6))[1] == 0


def test_sagittal_shows_superior_at_the_top_and_the_face_to_the_left():
    assert _brightest(sagittal(_voxel(5, 6, SUPERIOR), 5))[0] == 0
    assert _brightest(sagittal(_voxel(5, ANTERIOR, 7), 5))[1] == 0


def test_the_drawn_axial_panel_has_an_anterior_voxel_in_its_upper_row():
    image = _voxel(RIGHT, ANTERIOR, CENTRE[2])[None]
    figure = reconstruction_slices(image, image, ["t1c"], "title")
    axes = figure.axes[0]
    assert _brightest(np.asarray(axes.images[0].get_array())) == (0, 0)
    assert axes.images[0].origin == "upper"
    assert [text.get_text() for text in axes.texts] == ["A", "P", "R", "L"]


# ---------------------------------------------------------------- reconstructions


def test_four_modalities_make_four_rows_of_nine_panels_and_a_bar_each(tmp_path: Path):
    image = np.random.default_rng(0).random((4, 16, 20, 12), np.float32)
    figure = reconstruction_slices(image, 0.5 * image, ["t1n", "t1c", "t2w", "t2f"], "subject")
    assert len(figure.axes) == 4 * (9 + 1)
    assert {"t1n", "t1c", "t2w", "t2f", "Axial 6", "Coronal 10", "Sagittal 8"} <= {*_texts(figure)}
    assert save_figure(figure, tmp_path / "slices.png", dpi=40).stat().st_size > 0


def test_a_radiograph_makes_one_row_of_three_panels_without_letters():
    image = np.random.default_rng(0).random((1, 16, 12), np.float32)
    figure = reconstruction_slices(image, image, ["x-ray"], "subject")
    assert len(figure.axes) == 3 + 1
    assert not any(axes.texts for axes in figure.axes)
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), image[0])


def test_a_reconstruction_is_shown_in_the_window_of_its_input():
    image = np.random.default_rng(0).random((1, 16, 12), np.float32)
    shown, faint, _, _ = reconstruction_slices(image, 0.1 * image, ["x-ray"], "subject").axes
    assert shown.images[0].get_clim() == faint.images[0].get_clim() == grey_window(image)


def test_the_three_planes_of_a_channel_share_one_difference_scale():
    image = np.random.default_rng(0).random((1, 16, 20, 12), np.float32)
    figure = reconstruction_slices(image, 0 * image, ["t1c"], "subject")
    ((low, high),) = {figure.axes[k].images[0].get_clim() for k in (2, 5, 8)}
    assert (low, high) == (0, pytest.approx(np.percentile(image, 99.5)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_reconstruction_that_is_not_finite_is_left_blank(tmp_path: Path, value: float):
    image = np.random.default_rng(0).random((1, 16, 12), np.float32)
    figure = reconstruction_slices(image, np.full_like(image, value), ["x-ray"], "diverged")
    save_figure(figure, tmp_path / "slices.png", dpi=40)
    assert np.ma.getmaskarray(figure.axes[1].images[0].get_array()).all()


def test_an_empty_image_reconstructed_perfectly_can_be_drawn(tmp_path: Path):
    nothing = np.zeros((1, 16, 12), np.float32)
    save_figure(reconstruction_slices(nothing, nothing, ["x-ray"], ""), tmp_path / "a.png", dpi=40)


# ---------------------------------------------------------------- scores


def _area(outline: PolyCollection) -> float:
    """Of a closed polygon, by Gauss's shoelace formula."""
    x, y = outline.get_paths()[0].vertices.T
    return abs(float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))) / 2


def test_the_histogram_counts_every_finite_score_of_each_class():
    scores = np.r_[np.linspace(0, 1, 200), np.linspace(1, 2, 50), 1e9, np.nan]
    labels = np.r_[np.zeros(200), np.ones(50), 1, 1]
    figure = score_histogram(scores, labels, "kl")
    (axes,) = figure.axes
    left, right = axes.get_xlim()
    width = (right - left) / int(2 * np.sqrt(251))  # of a bin; 251 scores are finite
    shares = [_area(steps) / width for steps in axes.collections]
    assert shares == pytest.approx([1, 1])
    assert axes.get_xlim()[1] < 3, "one wild score flattens the rest"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "normal (n = 200)",
        "sick (n = 51)",
    ]
    assert "1 not finite" in _texts(figure)[0]


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-12, 1e20])
def test_constant_scores_have_a_histogram(tmp_path: Path, value: float):
    save_figure(score_histogram([value] * 9, [0, 1, 1] * 3, "elbo"), tmp_path / "h.png", dpi=40)


@pytest.mark.parametrize("scores", [[], [1.0, 2.0], [np.nan, np.inf]])
def test_a_histogram_does_without_sick_or_any_samples(tmp_path: Path, scores: list[float]):
    save_figure(score_histogram(scores, [0] * len(scores), "kl"), tmp_path / "h.png", dpi=40)


def test_the_roc_curve_is_drawn_as_given_and_names_its_area():
    figure = roc_curve_figure([0, 0, 1], [0, 0.75, 1], 0.875)
    chance, curve = figure.axes[0].lines
    assert curve.get_xydata().tolist() == [[0, 0], [0, 0.75], [1, 1]]
    assert chance.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert "0.875" in _texts(figure)[0]


# ---------------------------------------------------------------- training


TABLE = {
    "epoch": [0, 1, 2],
    "train/loss": [9000.0, 300.0, 100.0],
    "val/loss": [900.0, 30.0, 10.0],
    "val/kl": [4.0, float("nan"), 5.0],
    "train/beta": [0.0, 0.5, 1.0],
}


def test_learning_curves_are_logarithmic_only_where_the_range_is_wide(tmp_path: Path):
    figure = learning_curves(TABLE)
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear", "linear", "linear"]
    save_figure(figure, tmp_path / "curves.png", dpi=40)


def test_what_is_decoded_elsewhere_is_drawn_beside_mu_where_it_is_logged(tmp_path: Path):
    errors = {"mu": [3.0, 2.0, 1.0], "zero": [3.0, 3.0, 4.0], "draw": [3.0, 4.0, 5.0]}
    table = TABLE | {f"val/recon_at_{place}": values for place, values in errors.items()}
    figure = learning_curves(table | {"val/active_units": [0, 4, 8]}, {"train": 100, "val": 10})
    *_, error, units = figure.axes
    assert [line.get_ydata().tolist() for line in error.lines] == list(errors.values())
    assert [line.get_label() for line in error.lines] == ["at mu", "at z = 0", "at drawn z"]
    assert units.lines[0].get_ydata().tolist() == [0, 4, 8]  # a number of units, not a sum
    save_figure(figure, tmp_path / "curves.png", dpi=40)


def test_sums_over_splits_of_different_size_become_comparable_per_sample():
    loss = learning_curves(TABLE, samples={"train": 100, "val": 10}).axes[0]
    train, validation = (line.get_ydata().tolist() for line in loss.lines)
    assert train == validation == [90, 3, 1]


def test_an_epoch_without_validation_is_a_gap_and_an_absent_column_is_named():
    _, recon, kl, _ = learning_curves(TABLE).axes
    assert kl.lines[0].get_xdata().tolist() == [0, 2]
    assert [text.get_text() for text in recon.texts] == ["not logged"]


def test_a_table_without_a_known_column_names_those_that_are():
    with pytest.raises(UserError, match=r"'loss'.*train/loss"):
        learning_curves({"loss": [1.0]})


def test_units_are_sorted_by_their_kl_and_none_is_called_active():
    figure = kl_per_unit([0.5, 3.0, 0.2, 0.3])
    (bars,) = figure.axes[0].patches
    assert bars.get_data().values.tolist() == [3.0, 0.5, 0.3, 0.2]
    assert _texts(figure)[0] == "KL of each of 4 latent units: 4 nats in all"
    assert not figure.axes[0].lines  # no threshold: units are active by the variance of mu


@pytest.mark.parametrize("kl", [[0.0], [0.0] * 64, [5.0] * 64, [5.0] * 32 + [0.0] * 32])
def test_a_wholly_collapsed_or_wholly_used_posterior_is_drawn(tmp_path: Path, kl: list[float]):
    save_figure(kl_per_unit(kl), tmp_path / "kl.png", dpi=40)


# ---------------------------------------------------------------- text and files


def test_what_the_font_cannot_show_becomes_a_question_mark():
    assert drawable("naïve $x_1$ Ωж") == "naïve $x_1$ Ωж"
    assert drawable("胸\n\udcff🧠") == "????"
    assert drawable("nai\u0308ve") == "na\u00efve"  # as macOS hands out names


def test_a_long_name_keeps_both_its_ends():
    assert drawable("abcdefghij", limit=10) == "abcdefghij"
    assert drawable("abcdefghijk", limit=6) == "ab…ijk"


def test_a_saved_figure_is_a_png_in_folders_that_were_made(tmp_path: Path):
    path = save_figure(new_figure(1, 1, "white"), tmp_path / "new" / "folder" / "f.png", dpi=40)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [entry.name for entry in path.parent.iterdir()] == ["f.png"]


def test_drawing_that_fails_leaves_the_older_picture_and_no_partial_file(tmp_path: Path):
    class Broken(Figure):
        def draw(self, *_: object) -> None:
            raise RuntimeError("cannot draw")

    path = tmp_path / "f.png"
    path.write_bytes(b"older")
    with pytest.raises(RuntimeError, match="cannot draw"):
        save_figure(Broken(), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["f.png"]
    assert path.read_bytes() == b"older"


def test_another_format_than_png_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"card\.jpg.*\.png"):
        save_figure(new_figure(1, 1, "white"), tmp_path / "card.jpg")


def test_drawing_and_saving_never_imports_pyplot(tmp_path: Path):
    program = f"""
import sys
import numpy as np
from matplotlib._pylab_helpers import Gcf
from vaelab.report.card import report_card
from vaelab.report.canvas import save_figure
from vaelab.report.training_figures import learning_curves
x = np.zeros((1, 8, 8))
card = report_card(x, x, x, 1.0, None, ["a"], [0.0], "t", "s")
save_figure(card, {str(tmp_path / "a.png")!r}, dpi=40)
save_figure(learning_curves({{"train/loss": [2.0, 1.0]}}), {str(tmp_path / "b.png")!r}, dpi=40)
assert "matplotlib.pyplot" not in sys.modules
assert not Gcf.figs
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)

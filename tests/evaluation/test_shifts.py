"""Claims about simulated machines: other pictures of the same patient."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vaelab.evaluation.shifts import (
    SHIFTS,
    BlackFrame,
    Contrast,
    Gamma,
    Rotation,
    Sharpness,
    Shift,
    Translation,
    Vignette,
    Zoom,
    shifted,
)

WIDTH, HEIGHT = 60, 40


@pytest.fixture
def film() -> Image.Image:
    """Noise over a ramp, from black to white."""
    noise = np.random.default_rng(0).uniform(0, 100, (HEIGHT, WIDTH))
    pixels = noise + np.linspace(0, 155, WIDTH)
    pixels[0, 0], pixels[-1, -1] = 0, 255
    return Image.fromarray(pixels.astype(np.float32))


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def grey(value: float) -> Image.Image:
    return Image.new("F", (WIDTH, HEIGHT), value)


@pytest.mark.parametrize("name", SHIFTS)
def test_a_shift_changes_the_image_within_its_size_and_range(name: str, film: Image.Image):
    result = shifted(film, name, seed=0, image_id="a")
    pixels = np.asarray(result)
    assert (result.mode, result.size) == ("F", film.size)
    assert np.isfinite(pixels).all()
    assert pixels.min() >= 0
    assert pixels.max() <= 255
    assert np.abs(pixels - np.asarray(film)).mean() > 0.5


@pytest.mark.parametrize(
    "nothing",
    [
        Gamma(1), Contrast(1), Sharpness(0), Rotation(0), Zoom(1), Translation(0), Vignette(0),
        BlackFrame(0),
    ],
    ids=lambda shift: type(shift).__name__,
)  # fmt: skip
def test_a_shift_of_no_strength_changes_nothing(nothing: Shift, film: Image.Image):
    np.testing.assert_allclose(np.asarray(nothing(film, draw())), np.asarray(film), atol=1e-3)


@pytest.mark.parametrize("name", SHIFTS)
def test_a_shift_depends_on_seed_and_image_and_not_on_what_came_before(
    name: str, film: Image.Image
):
    before = np.asarray(shifted(film, name, 0, "a"))
    shifted(film, "mixed", 1, "b")
    assert np.array_equal(before, np.asarray(shifted(film, name, 0, "a")))


@pytest.mark.parametrize("name", ["translation", "vignette", "black_frame", "mixed"])
def test_images_and_seeds_draw_apart(name: str, film: Image.Image):
    first, other_image, other_seed = (
        np.asarray(shifted(film, name, seed, image_id))
        for seed, image_id in ((0, "a"), (0, "b"), (1, "a"))
    )
    assert not np.array_equal(first, other_image)
    assert not np.array_equal(first, other_seed)


def test_gamma_follows_its_formula():
    darker = np.asarray(Gamma(1.4)(grey(127.5), draw()))
    np.testing.assert_allclose(darker, 255 * 0.5**1.4, rtol=1e-5)  # 96.6
    assert np.asarray(Gamma(0.7)(grey(127.5), draw())).min() > 127.5


def test_contrast_keeps_the_mean_and_scales_the_spread(film: Image.Image):
    pixels, flatter = np.asarray(film), np.asarray(Contrast(0.7)(film, draw()))
    assert flatter.mean() == pytest.approx(pixels.mean(), rel=1e-4)
    assert flatter.std() == pytest.approx(0.7 * pixels.std(), rel=1e-4)


def test_blur_takes_detail_and_sharpening_adds_it(film: Image.Image):
    def detail(image: Image.Image) -> float:
        return float(np.abs(np.diff(np.asarray(image), axis=1)).mean())

    blurred, sharp = (SHIFTS[name](film, draw()) for name in ("blur", "sharpen"))
    assert detail(blurred) < detail(film) < detail(sharp)


def test_a_black_frame_darkens_the_border_only():
    framed = np.asarray(BlackFrame(0.2)(grey(200), draw()))
    inside = np.s_[HEIGHT // 5 : -HEIGHT // 5, WIDTH // 5 : -WIDTH // 5]
    assert (framed[inside] == 200).all()
    assert set(np.unique(framed)) == {0, 200}


def test_a_vignette_darkens_the_corners_most():
    dimmed = np.asarray(Vignette(0.5)(grey(200), draw()))
    corners = dimmed[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.max() < dimmed[HEIGHT // 2, WIDTH // 2]
    assert corners.min() >= 100  # no more than half is lost


def test_zooming_out_leaves_a_black_margin():
    # 60 · (1 − 0.8) / 2 = 6 columns and 40 · 0.1 = 4 rows on each side.
    smaller = np.asarray(Zoom(0.8)(grey(200), draw()))
    expected = np.zeros((HEIGHT, WIDTH))
    expected[4:-4, 6:-6] = 200
    assert np.array_equal(smaller, expected)


def test_a_turn_by_90_degrees_moves_top_to_a_side():
    square = np.zeros((9, 9), np.float32)
    square[0, 4] = 255
    turned = np.asarray(Rotation(90)(Image.fromarray(square), draw()))
    sides = turned[4, 0], turned[4, 8]
    assert sorted(sides) == pytest.approx([0, 255], abs=1e-3)

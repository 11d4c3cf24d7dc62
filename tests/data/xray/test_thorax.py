"""Claims about registration: a thorax is found where it stands, and shown where thoraces lie."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from vaelab.data.xray.thorax import (
    IDENTITY,
    SIDE,
    THORAX,
    Thorax,
    crop,
    crop_mask,
    learn_thorax,
    spread,
    uncrop,
)


def drawn(
    right: float = 0, down: float = 0, wide: float = 1, high: float = 1, side: int = SIDE
) -> NDArray[np.float32]:
    """Two dark lungs in a bright trunk before black; shifts in half sides, sizes as factors."""
    place = (np.arange(side) + 0.5) / (side / 2) - 1
    x, y = (place[None] - right) / wide, (place[:, None] - down) / high
    trunk = 1 / (1 + np.exp((np.abs(x) - 0.85) / 0.05)) + 0 * y
    lungs = sum(np.exp(-(((x - at) / 0.25) ** 2) - ((y + 0.1) / 0.45) ** 2) for at in (-0.4, 0.4))
    return (trunk * (1 - 0.8 * lungs)).astype(np.float32)


THORAXES = [
    {},
    {"right": 0.1},
    {"down": -0.15},
    {"wide": 0.85, "high": 0.85},
    {"right": -0.08, "down": 0.1, "wide": 1.1, "high": 0.9},
]


@pytest.mark.parametrize("change", THORAXES)
def test_a_thorax_is_found_where_it_stands(change: dict[str, float]) -> None:
    placement = Thorax(drawn()).place(drawn(**change))
    x, y, half_width, half_height = THORAX
    wide, high = change.get("wide", 1), change.get("high", 1)
    expected = [
        [wide * half_width, 0, wide * x + change.get("right", 0)],
        [0, high * half_height, high * y + change.get("down", 0)],
    ]
    # Two pixels of 64, 1/16 of a half side: the prior holds a fit back by less than that.
    np.testing.assert_allclose(placement, expected, atol=1 / 16)


def test_registered_images_are_closer_together() -> None:
    images = np.stack([drawn(**change) for change in THORAXES])
    thorax = learn_thorax(images)
    shown = np.stack([crop(image, thorax.place(image), (SIDE, SIDE)) for image in images])
    assert spread(shown, shown.mean(0)) < spread(images, images.mean(0)) / 5


def test_contrast_and_brightness_do_not_move_a_thorax() -> None:
    image = drawn(right=0.1, wide=0.9)
    thorax = Thorax(drawn())
    np.testing.assert_allclose(thorax.place(0.3 + 0.2 * image), thorax.place(image), atol=5e-3)


def test_one_template_has_one_digest_and_another_another() -> None:
    assert Thorax(drawn()).digest == Thorax(drawn()).digest
    assert Thorax(drawn()).digest != Thorax(drawn(right=0.01)).digest


def test_a_map_comes_back_to_where_its_evidence_lies() -> None:
    """Shown turned, moved and shrunk; what is bright there is bright at the same place here."""
    angle, zoom = math.radians(10), 0.7
    cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
    placement = np.array([[cos, -sin, 0.1], [sin, cos, -0.05]])
    spot = np.zeros((96, 96), np.float32)
    spot[40:56, 50:62] = 1
    back = uncrop(crop(spot, placement, (64, 64)), placement, spot.shape)
    overlap = np.minimum(back, spot).sum() / np.maximum(back, spot).sum()
    assert overlap > 0.8
    mask = uncrop(crop_mask(spot > 0, placement, (64, 64)), placement, spot.shape) > 0.5
    assert (mask & (spot > 0)).sum() / (mask | (spot > 0)).sum() > 0.8


def test_outside_of_what_is_shown_a_map_is_nothing() -> None:
    half = np.array([[0.5, 0, 0], [0, 0.5, 0]])  # the middle 4 of 8 pixels
    back = uncrop(np.ones((4, 4), np.float32), half, (8, 8))
    assert back.sum() == 16
    assert back[2:6, 2:6].all()


def test_the_identity_shows_the_whole_image() -> None:
    image = drawn()
    # Averaged over two samples a pixel, a quarter of a pixel from its centre to either side.
    np.testing.assert_allclose(crop(image, IDENTITY, image.shape), image, atol=0.1)
    np.testing.assert_array_equal(crop_mask(image > 0.5, IDENTITY, image.shape), image > 0.5)

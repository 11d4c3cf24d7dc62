"""Factors of shapes whose answers are known.

A shape is drawn in mm and read by voxels whose centres lie in it. Of the voxels that its surface
cuts about half are inside. A ball of r voxels has 4πr² of them, taken or left as by tossing coins:
its volume is off by about √(πr²) of 4/3 πr³, 1.2 % at six voxels. A length is off by at most a
voxel, a centroid by a small part of one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from vaelab.metrics.factors import (
    FEWEST_VOXELS,
    LEFT,
    MIDLINE,
    NAMES,
    RIGHT,
    SMALLEST_PART_MM3,
    Factors,
    factors_of,
    surface_mm2,
)

Floats = NDArray[np.float64]
Shape = Callable[[Floats], NDArray[np.bool_]]
"""Points of the patient's world, (..., 3) mm → whether they are inside."""

SPACINGS = [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (0.75, 0.75, 2.0)]
ORIENTATIONS = {  # voxel axes as rows of the patient's, +x to the right
    "RAS": np.diag([1.0, 1, 1]),
    "LPS": np.diag([-1.0, -1, 1]),
    "PSR": np.array([[0.0, 0, 1], [-1, 0, 0], [0, 1, 0]]),
}


def ellipsoid(centre: tuple[float, ...], *radii: float) -> Shape:
    return lambda at: (((at - centre) / radii) ** 2).sum(-1) <= 1


def ball(centre: tuple[float, ...], radius: float) -> Shape:
    return ellipsoid(centre, radius, radius, radius)


def box(low: tuple[float, ...], high: tuple[float, ...]) -> Shape:
    return lambda at: ((at > low) & (at < high)).all(-1)


def grid(
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0), orientation: str = "RAS", side: float = 80.0
) -> tuple[Floats, Floats]:
    """Affine of a cube about the origin, and where its voxels lie, (D, H, W, 3)."""
    linear = ORIENTATIONS[orientation] * spacing
    shape = [round(side / size) for size in spacing]
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = -linear @ ((np.array(shape) - 1) / 2)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return affine, index @ linear.T + affine[:3, 3]


def factors(shape: Shape, brain: Shape | None = None, **where: object) -> Factors:
    affine, at = grid(**where)  # type: ignore[arg-type]
    return factors_of(shape(at).astype(np.uint8), affine, None if brain is None else brain(at))


# --- size and place


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_ball_is_where_it_is_however_it_is_stored(
    spacing: tuple[float, ...], orientation: str
) -> None:
    centre, radius = (-11.0, 7.0, 16.0), 12.0
    found = factors(ball(centre, radius), spacing=spacing, orientation=orientation)
    assert found.volume_mm3 == pytest.approx(4 / 3 * np.pi * radius**3, rel=2 * 0.012)  # 2 sd
    assert found.centre_mm == pytest.approx(centre, abs=0.1 * max(spacing))
    assert found.extent_mm == pytest.approx(2 * radius, abs=max(spacing))
    # A tenth of a voxel at both ends of the longest axis, and less on the shortest.
    assert found.elongation == pytest.approx(1, abs=2 * 0.1 * max(spacing) / radius)
    # Two thirds of the volume's error, and 2 % of the surface at six voxels.
    assert found.sphericity == pytest.approx(1, abs=2 / 3 * 2 * 0.012 + 0.02)
    assert found.parts == 1
    assert found.side == LEFT  # whatever the order of voxels


def test_volumes_are_of_each_label_and_of_all() -> None:
    affine, _ = grid((1.0, 2.0, 3.0), side=24)
    seg = np.zeros((24, 12, 8), np.int16)
    seg[:2, 0, 0] = 1
    seg[5:10, 3, 3] = 3
    found = factors_of(seg, affine)
    assert found.label_mm3 == {1: 2 * 6.0, 3: 5 * 6.0}
    assert found.volume_mm3 == 7 * 6.0
    columns = found.columns()
    assert columns["label_3_mm3"] == 30
    assert columns["label_3_log"] == np.log(31)
    assert columns["segmented_log"] == np.log(43)


@pytest.mark.parametrize(("x", "side"), [(-6, LEFT), (-4, MIDLINE), (0, MIDLINE), (6, RIGHT)])
def test_the_side_is_the_patients_own(x: float, side: float) -> None:
    for orientation in ORIENTATIONS:
        assert factors(ball((x, 0, 0), 8), orientation=orientation).side == side


def test_the_side_and_the_place_are_those_in_the_brain() -> None:
    # The brain reaches from 0 to 30, -30 to 30, -10 to 30: its middle is x = 15.
    brain = box((0, -30, -10), (30, 30, 30))
    found = factors(ball((9, 15, 10), 5), brain)
    assert found.side == LEFT
    assert found.centre_share == pytest.approx((0.3, 0.75, 0.5), abs=0.01)
    assert found.depth_mm == pytest.approx(9, abs=0.6)  # to x = 0, off by half a voxel at most


def test_depth_is_negative_outside_the_brain_and_blind_to_its_holes() -> None:
    def hollow(at: Floats) -> NDArray[np.bool_]:
        return ball((0, 0, 0), 30)(at) & ~ball((0, 0, 0), 10)(at)

    # In the middle of the hole, 30 mm below the surface; a voxel's diagonal is what a ball of
    # voxels may lack.
    assert factors(ball((0, 0, 0), 5), hollow).depth_mm == pytest.approx(30, abs=1)
    assert factors(ball((35, 0, 0), 4), ball((0, 0, 0), 30)).depth_mm == pytest.approx(-5, abs=1)


# --- shape


def test_an_ellipsoid_is_as_elongated_as_its_axes_wherever_they_point() -> None:
    for radii in ((9, 9, 27), (27, 9, 9), (9, 27, 18)):
        found = factors(ellipsoid((0, 0, 0), *radii), spacing=(1.0, 1.0, 2.0))
        # A tenth of a voxel of 2 mm on the shortest radius of 9.
        assert found.elongation == pytest.approx(3, rel=0.2 / 9)
        assert found.extent_mm == pytest.approx(54, abs=2)
    # Surface of a prolate spheroid, e the eccentricity: 2πa² (1 + c/(a e) asin e).
    a, c = 9, 27
    e = np.sqrt(1 - (a / c) ** 2)
    surface = 2 * np.pi * a**2 * (1 + c / (a * e) * np.arcsin(e))
    sphericity = np.pi ** (1 / 3) * (6 * 4 / 3 * np.pi * a * a * c) ** (2 / 3) / surface
    assert factors(ellipsoid((0, 0, 0), 9, 9, 27)).sphericity == pytest.approx(sphericity, rel=0.03)


def test_a_box_has_its_diagonal_its_moments_and_a_surface_within_a_tenth() -> None:
    sides = np.array([16.0, 24.0, 32.0])
    found = factors(box((0, 0, 0), tuple(sides)))
    assert found.volume_mm3 == sides.prod()
    assert found.extent_mm == pytest.approx(np.linalg.norm(sides), abs=np.sqrt(3))
    assert found.elongation == pytest.approx(2)  # second moments of a box: sides² / 12
    # The worst case of Crofton's formula on 13 directions: 7.3 % on planes along the axes, and
    # what edges cost.
    surface = 2 * (16 * 24 + 24 * 32 + 32 * 16)
    affine, at = grid()
    measured = surface_mm2(box((0, 0, 0), tuple(sides))(at), affine[:3, :3])
    assert 0.9 * surface < measured < surface * (1 - 0.073)


@pytest.mark.parametrize("radius", [3, 4, 6, 10])
def test_the_surface_of_a_ball_is_right_on_average_over_places_in_the_grid(radius: float) -> None:
    affine, at = grid(side=2 * radius + 4)
    shifts = np.random.default_rng(0).uniform(-0.5, 0.5, (20, 3))
    measured = [surface_mm2(ball(tuple(by), radius)(at), affine[:3, :3]) for by in shifts]
    # Thin directions miss a part of the outer voxels: 3 % at 3 voxels, 1 % at 10.
    assert np.mean(measured) == pytest.approx(4 * np.pi * radius**2, rel=0.1 / radius)


def test_two_balls_are_two_parts_and_specks_are_none() -> None:
    def two(at: Floats) -> NDArray[np.bool_]:
        speck = ball((0, 0, 30), 2)(at)  # 33 mm³
        assert speck.sum() < SMALLEST_PART_MM3
        return ball((-20, 0, 0), 9)(at) | ball((20, 0, 0), 9)(at) | speck

    found = factors(two)
    assert found.parts == 2
    assert found.side == MIDLINE
    assert found.extent_mm == pytest.approx(2 * 29, abs=1)
    alone = factors(ball((20, 0, 0), 9))
    assert found.sphericity < 0.85 * alone.sphericity  # two balls have 2^(-1/3) = 0.79


def test_parts_that_touch_at_a_corner_are_one() -> None:
    def corner(at: Floats) -> NDArray[np.bool_]:
        return box((-8, -8, -8), (0, 0, 0))(at) | box((0, 0, 0), (8, 8, 8))(at)

    assert factors(corner).parts == 1


# --- where there is nothing to say


def test_an_empty_segmentation_has_no_volume_and_no_shape() -> None:
    columns = factors(lambda at: np.zeros(at.shape[:3], bool), ball((0, 0, 0), 30)).columns()
    known = {name: value for name, value in columns.items() if not np.isnan(value)}
    assert known == {"segmented_mm3": 0, "segmented_log": 0, "parts": 0}
    assert tuple(columns) == NAMES


def test_without_a_brain_only_what_needs_it_is_unknown() -> None:
    columns = factors(ball((10, 0, 0), 9)).columns()
    unknown = {name for name, value in columns.items() if np.isnan(value)}
    assert unknown == {"centre_x_share", "centre_y_share", "centre_z_share", "depth_mm"}


def test_a_voxel_has_a_size_but_no_shape() -> None:
    affine, _ = grid((2.0, 2.0, 2.0), side=16)
    seg = np.zeros((8, 8, 8), np.uint8)
    seg[0, 3, 3] = 1
    found = factors_of(seg, affine)
    assert found.extent_mm == pytest.approx(2)  # from face to face
    assert np.isnan(found.elongation)
    assert np.isnan(found.sphericity)
    seg.reshape(-1)[:FEWEST_VOXELS] = 1
    assert np.isfinite(factors_of(seg, affine).elongation)

"""A second scan differs from the first in what was asked for, and in nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vaelab.errors import UserError
from vaelab.evaluation.rescan import Rescan, moved

STILL = {"shift": 0, "rotation_deg": 0}
POSITION = {"gain": 0, "noise": 0}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def head() -> Tensor:
    """Two volumes of two channels: -0.7 around a cube of tissue."""
    x = torch.full((2, 2, 12, 12, 12), -0.7)
    x[..., 3:9, 3:9, 3:9] = 1 + torch.rand(2, 2, 6, 6, 6, generator=seeded())
    return x


def dot(shape: tuple[int, ...], place: tuple[int, ...]) -> Tensor:
    """One bright voxel."""
    x = torch.zeros(1, 1, *shape)
    x[(0, 0, *place)] = 1
    return x


def place_of(x: Tensor) -> list[int]:
    """Of the brightest voxel, along each axis."""
    return [int(i) for i in (x[0, 0] == x.max()).nonzero()[0]]


def none(dims: int) -> Tensor:
    return torch.zeros(1, dims)


# --- Position


def test_a_shift_of_one_voxel_in_mm_is_a_roll_within_the_volume() -> None:
    x = torch.rand(1, 2, 8, 9, 10, generator=seeded())
    spacing = [6.0, 1.0, 2.5]
    for axis, size in enumerate(spacing):
        shift = none(3)
        shift[0, axis] = size
        found = moved(x, shift, none(3), spacing)
        inside = (..., *[slice(1, -1)] * 3)
        torch.testing.assert_close(found[inside], x.roll(1, axis + 2)[inside], rtol=0, atol=1e-5)
        first = found.select(axis + 2, 0)
        torch.testing.assert_close(first, x.select(axis + 2, 0), rtol=0, atol=1e-5)  # the edge


def test_a_shift_of_a_third_of_a_voxel_shares_a_voxel_between_two() -> None:
    shift = torch.tensor([[0.0, 2.0, 0.0]])
    found = moved(dot((5, 5, 5), (2, 2, 2)), shift, none(3), [6.0] * 3)[0, 0]
    assert found[2, 2, 2].item() == pytest.approx(2 / 3, abs=1e-5)
    assert found[2, 3, 2].item() == pytest.approx(1 / 3, abs=1e-5)
    assert found.sum().item() == pytest.approx(1, abs=1e-5)


def test_a_quarter_turn_about_an_axis_takes_one_of_the_others_to_the_next() -> None:
    # From the centre (4, 4, 4): what lies along H goes to W, W to D, D to H.
    for axis, (before, after) in enumerate(
        [((4, 6, 4), (4, 4, 6)), ((4, 4, 6), (6, 4, 4)), ((6, 4, 4), (4, 6, 4))]
    ):
        angles = none(3)
        angles[0, axis] = 90
        found = moved(dot((9, 9, 9), before), none(3), angles, [2.0] * 3)
        assert place_of(found) == list(after)
        assert found.max().item() == pytest.approx(1, abs=1e-4)


def test_a_quarter_turn_is_one_in_mm_where_voxels_are_no_cubes() -> None:
    # 4 voxels of 1 mm along H become 2 of 2 mm along W.
    quarter = torch.tensor([[90.0]])
    found = moved(dot((9, 9), (8, 4)), none(2), quarter, [1.0, 2.0])
    assert place_of(found) == [4, 6]


def test_an_image_is_turned_about_its_centre_and_then_shifted() -> None:
    # (6, 4) turns to (4, 6), then goes one on along H; the other way round it would be (4, 7).
    found = moved(dot((9, 9), (6, 4)), torch.tensor([[1.0, 0.0]]), torch.tensor([[90.0]]), [1, 1])
    assert place_of(found) == [5, 6]


def test_no_shift_and_no_turn_is_the_image() -> None:
    x = torch.rand(1, 1, 7, 8, 9, generator=seeded())
    torch.testing.assert_close(moved(x, none(3), none(3), [1, 2, 3]), x, rtol=0, atol=1e-5)


def test_a_position_is_measured_in_mm_and_differs_between_images_not_channels() -> None:
    ramp = torch.arange(40.0)
    x = torch.stack([ramp[:, None, None].expand(40, 8, 8)] * 2).expand(200, 2, 40, 8, 8)
    scanned = Rescan(shift=3, rotation_deg=0, **POSITION)(x, seeded(), [6.0, 1.0, 1.0])
    change = (x - scanned)[:, :, 20, 4, 4]  # in voxels of 6 mm
    torch.testing.assert_close(change[:, 0], change[:, 1])
    assert change[:, 0].std().item() == pytest.approx(3 / 6, rel=0.15)
    in_pixels = Rescan(shift=3, rotation_deg=0, **POSITION)(x, seeded())
    assert (x - in_pixels)[:, 0, 20, 4, 4].std().item() == pytest.approx(3, rel=0.15)


def test_an_angle_has_the_size_asked_for() -> None:
    # Along H the image rises by 1 a pixel: turned by a, a pixel at w from the centre has -w sin a.
    x = torch.arange(41.0)[:, None].expand(200, 1, 41, 41)
    scanned = Rescan(shift=0, rotation_deg=2, **POSITION)(x, seeded())
    degrees = torch.rad2deg(torch.asin((scanned - x)[:, 0, 20, 30] / 10))
    assert degrees.std().item() == pytest.approx(2, rel=0.15)


# --- Gain and noise


@pytest.mark.parametrize("rescan", [Rescan(**STILL), Rescan()])
def test_the_background_stays_where_it_is(rescan: Rescan) -> None:
    x = head()
    scanned = rescan(x, seeded())
    far = (..., slice(0, 1), slice(None), slice(None))  # no tissue gets there
    assert (scanned[far] == -0.7).all()
    if rescan == Rescan(**STILL):
        assert (scanned[x == -0.7] == -0.7).all()
    assert (scanned[x > -0.7] != x[x > -0.7]).all()


def test_background_of_0_stays_0_though_darker_tissue_lies_below() -> None:
    x = torch.zeros(2, 3, 8, 8, 8)
    x[:, :, 2:6, 2:6, 2:6] = torch.randn(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    again = Rescan(shift=0, rotation_deg=0)(x, torch.Generator().manual_seed(0))
    inside = x != 0
    torch.testing.assert_close(again[~inside], x[~inside], atol=1e-6, rtol=0)
    assert (again[inside] != x[inside]).float().mean() > 0.95  # all but the lowest of a channel


def test_noise_has_the_size_asked_for() -> None:
    x = head()
    change = (Rescan(**STILL, gain=0, noise=0.1)(x, seeded()) - x)[x > -0.7]
    assert change.std().item() == pytest.approx(0.1 * x[0, 0].std().item(), rel=0.1)


def test_noise_comes_after_interpolation_which_would_smooth_it() -> None:
    flat = torch.ones(1, 1, 12, 12, 12)
    flat[..., 0, 0, 0] = 0  # a background
    scanned = Rescan(shift=0.5, rotation_deg=0, gain=0, noise=0.1)(flat, seeded())
    inside = scanned[..., 4:, 4:, 4:]
    assert inside.std().item() == pytest.approx(0.1 * flat.std().item(), rel=0.1)


def test_a_gain_is_one_factor_for_each_channel() -> None:
    x = head()
    scanned = Rescan(**STILL, gain=0.1, noise=0)(x, seeded())
    tissue = slice(3, 9)
    factor = ((scanned + 0.7) / (x + 0.7))[..., tissue, tissue, tissue].flatten(2)
    torch.testing.assert_close(factor.amax(2), factor.amin(2))
    assert len(factor[..., 0].flatten().unique()) == 4


# --- Both


def test_images_of_two_dimensions_are_scanned_too() -> None:
    x = torch.rand(3, 1, 16, 16, generator=seeded())
    assert Rescan()(x, seeded()).shape == x.shape
    torch.testing.assert_close(Rescan()(x, seeded()), Rescan()(x, seeded()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shift": -1}, r"task\.rescan\.shift=-1"),
        ({"rotation_deg": -1}, r"task\.rescan\.rotation_deg=-1"),
        ({"noise": -0.1}, r"task\.rescan\.noise=-0\.1"),
        ({**STILL, **POSITION}, "all 0"),
    ],
)
def test_what_cannot_work_is_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Rescan(**arguments)

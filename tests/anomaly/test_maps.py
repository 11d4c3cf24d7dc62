"""Residual maps and their smoothing."""

from __future__ import annotations

import pytest
import torch

from vaelab.anomaly.detector import AnomalyDetector
from vaelab.anomaly.maps import residual_map, smoothed_map
from vaelab.anomaly.scores import SquaredError
from vaelab.errors import UserError
from vaelab.models.conv2d import Conv2dVAE


def test_residuals_are_absolute_and_averaged_over_channels() -> None:
    x = torch.zeros(1, 2, 1, 2)
    x_hat = torch.tensor([[[[1.0, -4.0]], [[-3.0, 0.0]]]])
    assert residual_map(x, x_hat).tolist() == [[[(1 + 3) / 2, (4 + 0) / 2]]]


@pytest.mark.parametrize("shape", [(2, 1, 8, 6), (2, 4, 8, 6, 4)], ids=["2D", "3D"])
def test_a_map_has_the_spatial_shape_of_its_image(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape)
    heat = residual_map(x, x)
    assert heat.shape == (shape[0], *shape[2:])
    assert torch.equal(heat, torch.zeros_like(heat))


def test_a_lesion_lights_up_where_it_is_and_nowhere_else() -> None:
    healthy = torch.rand(1, 4, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    sick = healthy.clone()
    sick[..., 2:4, 5:7, 1:3] += 1
    heat = residual_map(sick, healthy)[0]
    inside = torch.zeros(8, 8, 8, dtype=torch.bool)
    inside[2:4, 5:7, 1:3] = True
    assert torch.equal(heat > 0.5, inside)
    assert heat[~inside].max() == 0


def test_half_precision_is_subtracted_in_float32() -> None:
    x = torch.full((1, 1, 2, 2), 60000.0, dtype=torch.float16)  # 60000 + 60000 > 65504
    assert residual_map(x, -x).tolist() == [[[120000.0] * 2] * 2]


# --- smoothing


@pytest.mark.parametrize("shape", [(2, 16, 20), (2, 12, 14, 16)])
def test_smoothing_keeps_a_constant_map_and_no_sigma_keeps_any(shape: tuple[int, ...]) -> None:
    constant = torch.full(shape, 3.0)
    torch.testing.assert_close(smoothed_map(constant, 2.0), constant)
    anything = torch.rand(shape)
    assert smoothed_map(anything, 0) is anything


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_smoothed_point_is_a_gaussian_of_the_same_mass(dimensions: int) -> None:
    point = torch.zeros(1, *[31] * dimensions)
    point[(0, *[15] * dimensions)] = 1
    spread = smoothed_map(point, 2.0)
    assert float(spread.sum()) == pytest.approx(1, abs=1e-5)
    beside = [15] * dimensions
    beside[-1] = 17  # one sigma along the last axis: exp(-1/2) of the peak
    peak = float(spread[(0, *[15] * dimensions)])
    assert float(spread[(0, *beside)]) / peak == pytest.approx(0.6065, abs=1e-3)


def test_a_negative_sigma_is_refused() -> None:
    with pytest.raises(UserError, match="map_sigma=-1"):
        AnomalyDetector(Conv2dVAE(1, 4, 2, (16, 16)), SquaredError(), map_sigma=-1)

"""How far a reconstruction is from its image, on images whose distance is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vaelab.metrics.image import mean_squared_error, psnr, squared_error_within


def ramp(*shape: int) -> Tensor:
    """An image from 0 to 1 in every sample and channel."""
    voxels = math.prod(shape[2:])
    return torch.linspace(0, 1, voxels).expand(shape[0], shape[1], voxels).reshape(shape)


# --- mean squared error


def test_an_error_of_a_half_everywhere_has_a_mean_square_of_a_quarter() -> None:
    x = ramp(2, 3, 4, 4, 4)
    assert torch.allclose(mean_squared_error(x, x + 0.5), torch.full((2, 3), 0.25))


def test_samples_and_channels_are_judged_apart() -> None:
    x, x_hat = torch.zeros(2, 2, 4), torch.zeros(2, 2, 4)
    x_hat[1, 0] = torch.tensor([2.0, 0, 0, 0])  # 2² / 4 = 1
    assert mean_squared_error(x, x_hat).tolist() == [[0, 0], [1, 0]]


def test_half_precision_does_not_overflow() -> None:
    x = torch.full((1, 1, 2, 2), 300.0, dtype=torch.float16)  # 300² = 90000 > 65504
    assert mean_squared_error(x, torch.zeros_like(x)).item() == 90000.0


# --- PSNR


@pytest.mark.parametrize(("error", "decibel"), [(0.1, 20), (0.01, 40), (1.0, 0)])
def test_a_tenth_of_the_error_gains_twenty_decibel(error: float, decibel: float) -> None:
    x = ramp(2, 3, 4, 4, 4)  # peak 1: 10 log10(1 / error²)
    expected = torch.full((2, 3), float(decibel))
    torch.testing.assert_close(psnr(x, x + error), expected, rtol=1e-4, atol=1e-3)


def test_psnr_is_relative_to_the_range_of_the_channel() -> None:
    x = ramp(1, 1, 8, 8)
    x_hat = x + 0.1
    stretched = 50 * x - 20  # z-scored MRI neither starts at 0 nor ends at 1
    torch.testing.assert_close(
        psnr(stretched, 50 * x_hat - 20), psnr(x, x_hat), rtol=1e-4, atol=1e-3
    )


def test_a_perfect_reconstruction_has_infinite_psnr() -> None:
    assert psnr(ramp(1, 1, 4, 4), ramp(1, 1, 4, 4)).item() == math.inf


# --- errors within a mask


def test_errors_are_summed_where_the_mask_holds_over_all_channels() -> None:
    x = torch.zeros(1, 3, 2, 2)
    x_hat = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(1, 3, 2, 2)
    mask = torch.tensor([[False, True], [False, True]])[None, None]
    total, voxels = squared_error_within(x, x_hat, mask)
    assert total.item() == 3 * (2**2 + 4**2)
    assert voxels.item() == 3 * 2


def test_a_mask_and_its_complement_make_the_whole() -> None:
    draw = torch.Generator().manual_seed(0)
    x, x_hat = torch.randn(2, 2, 3, 4, 4, 4, generator=draw)
    mask = torch.rand(2, 1, 4, 4, 4, generator=draw) > 0.3
    inside, n_inside = squared_error_within(x, x_hat, mask)
    outside, n_outside = squared_error_within(x, x_hat, ~mask)
    assert (n_inside + n_outside).item() == x.numel()
    whole = (x.double() - x_hat.double()).square().sum()
    torch.testing.assert_close(inside + outside, whole)


def test_nothing_within_an_empty_mask() -> None:
    x = torch.zeros(1, 1, 2, 2)
    total, voxels = squared_error_within(x, x + 1, torch.zeros(1, 1, 2, 2, dtype=torch.bool))
    assert (total.item(), voxels.item()) == (0, 0)
    assert total.dtype == voxels.dtype == torch.float64

"""How far a reconstruction is from its image, on images whose distance is known."""

from __future__ import annotations

import math

import pytest
import torch
from monai.metrics import PSNRMetric
from torch import Tensor

from vaelab.metrics.image import (
    foreground,
    mean_of_windows,
    mean_squared_error,
    psnr,
    similarity_of_windows,
    squared_error_within,
)


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


# --- within a mask


def test_psnr_within_a_mask_keeps_the_peak_of_the_whole() -> None:
    x = ramp(1, 1, 4, 4)  # peak 1
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    mask[..., 1:3, 1:3] = True
    x_hat = x + torch.where(mask, 0.1, 10.0)
    assert psnr(x, x_hat, mask).item() == pytest.approx(20, abs=1e-3)


def test_a_mask_that_holds_nowhere_has_no_mean() -> None:
    x = ramp(1, 2, 4, 4)
    assert mean_squared_error(x, x, torch.zeros(1, 1, 4, 4, dtype=torch.bool)).isnan().all()


def test_the_foreground_is_what_differs_from_the_background_in_any_channel() -> None:
    x = torch.full((1, 2, 6, 6, 6), -0.7)  # 0 before z-scoring
    x[:, 0, 2, 2, 2] = 3.0
    x[:, 1, 4, 4, 4] = 2.0
    assert foreground(x).nonzero().tolist() == [[0, 0, 2, 2, 2], [0, 0, 4, 4, 4]]


def test_padding_after_normalisation_is_no_foreground() -> None:
    x = torch.full((1, 2, 6, 6, 6), -0.7)
    x[..., 2:4] = torch.linspace(1, 2, 2)
    x[..., 0] = 0.0  # padded: the mean of the volume, above its background
    assert foreground(x).any(dim=(0, 1, 2, 3)).tolist() == [False, False, True, True, False, False]


# --- SSIM


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def ssim(x: Tensor, x_hat: Tensor, mask: Tensor | None = None) -> Tensor:
    return mean_of_windows(similarity_of_windows(x, x_hat), mask)


def test_an_image_is_like_itself() -> None:
    x = noise(2, 3, 12, 12, 12)
    torch.testing.assert_close(ssim(x, x), torch.ones(2, 3))


def test_a_negative_is_unlike_its_image_and_a_blank_has_next_to_no_structure() -> None:
    x = noise(1, 1, 24, 24)
    assert ssim(x, 1 - x).item() < -0.5
    assert 0 < ssim(x, torch.full_like(x, 0.5)).item() < 0.05


def test_a_constant_shift_costs_luminance_alone() -> None:
    # One window of an image whose mean is m: (2 m (m + d) + c1) / (m² + (m + d)² + c1).
    x = noise(1, 1, 11, 11)
    x = (x - x.min()) / (x.max() - x.min())  # range 1
    line = torch.exp(-(torch.arange(-5.0, 6.0) ** 2) / (2 * 1.5**2))
    window = torch.outer(line, line) / line.sum() ** 2
    m = (window * x[0, 0]).sum().item()
    d, c1 = 0.2, 0.01**2
    expected = (2 * m * (m + d) + c1) / (m**2 + (m + d) ** 2 + c1)
    assert ssim(x, x + d).item() == pytest.approx(expected, rel=1e-4)


def test_ssim_does_not_mind_z_scoring() -> None:
    x = noise(1, 2, 16, 16)
    x_hat = x + 0.1 * noise(1, 2, 16, 16).flip(-1)
    torch.testing.assert_close(
        ssim(50 * x - 20, 50 * x_hat - 20), ssim(x, x_hat), atol=1e-3, rtol=0
    )


def test_ssim_within_a_mask_is_of_the_windows_centred_there() -> None:
    x = noise(1, 1, 40, 40)
    x_hat = x.clone()
    x_hat[..., 20:] = 1 - x_hat[..., 20:]
    mask = torch.zeros(1, 1, 40, 40, dtype=torch.bool)
    mask[..., :14] = True  # windows centred left of column 15 see nothing of the negative
    assert ssim(x, x_hat, mask).item() == pytest.approx(1, abs=1e-5)
    assert ssim(x, x_hat, ~mask).item() < 0.5


def test_a_constant_channel_has_no_ssim() -> None:
    x = torch.zeros(1, 1, 12, 12)
    assert ssim(x, x).isnan().all()
    assert math.isfinite(ssim(noise(1, 1, 12, 12), x).item())


def test_psnr_agrees_with_monai() -> None:
    x, x_hat = noise(2, 1, 8, 8, 8), noise(2, 1, 8, 8, 8) * 0.9
    for image, reconstruction in zip(x.split(1), x_hat.split(1), strict=True):
        peak = float(image.max() - image.min())
        monai = PSNRMetric(peak, reduction="none")(reconstruction, image)
        torch.testing.assert_close(psnr(image, reconstruction), monai)

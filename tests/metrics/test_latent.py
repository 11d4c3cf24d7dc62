"""Active units of latents whose variances are known."""

from __future__ import annotations

import math

import pytest
import torch

from vaelab.metrics.latent import ACTIVE_THRESHOLD, active_units


def test_the_threshold_is_that_of_burda_et_al() -> None:
    assert ACTIVE_THRESHOLD == 0.01


def test_a_unit_is_active_when_its_mean_varies_by_more_than_a_hundredth() -> None:
    # ±a over two samples has a variance of 2a²: 0, 0.0098, 0.0102 and 2.
    spread = torch.tensor([0.0, 0.07, math.sqrt(0.0051), 1.0])
    assert active_units(torch.stack([spread, -spread])) == 2


@pytest.mark.parametrize(("threshold", "active"), [(0.001, 3), (0.01, 2), (1.0, 1), (10.0, 0)])
def test_the_threshold_can_be_chosen(threshold: float, active: int) -> None:
    spread = torch.tensor([0.0, 0.07, math.sqrt(0.0051), 1.0])
    assert active_units(torch.stack([spread, -spread]), threshold) == active


def test_a_large_but_constant_mean_is_not_active() -> None:
    mu = torch.full((100, 3), 1e4)
    mu[:, 2] += 0.5 * torch.arange(100) % 1  # 0 or ½ in turn: a variance of about 1/16
    assert active_units(mu) == 1


def test_noise_in_seven_of_ten_units_is_seven_active_units() -> None:
    mu = torch.randn(500, 10, generator=torch.Generator().manual_seed(0))
    mu[:, 7:] *= 0.05  # a variance of 0.0025
    assert active_units(mu) == 7

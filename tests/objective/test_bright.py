"""Claims about a squared error that weighs bright voxels more."""

from __future__ import annotations

import pytest
import torch

from vaelab.errors import UserError
from vaelab.models.vae import VAEOutput
from vaelab.objective.bright import BrightELBOLoss, brightness_weight
from vaelab.objective.contract import Step
from vaelab.objective.elbo import ELBOLoss

STEP = Step(beta=2.0, epoch=0, train_samples=2, stage="train")


def output_of(x: torch.Tensor) -> VAEOutput:
    """Every voxel is off by 1, and every one of two units is a standard deviation off."""
    return VAEOutput(x - 1, torch.ones(len(x), 2), torch.zeros(len(x), 2))


def test_the_weight_grows_from_two_to_six_standard_deviations_and_is_at_most_seventeen() -> None:
    x = torch.tensor([-3.0, 0.0, 2.0, 3.0, 6.0, 60.0])
    assert brightness_weight(x, 4, 2, 4).tolist() == [1, 1, 1, 5, 17, 17]


def test_bright_voxels_cost_more_and_the_plain_error_is_told_beside() -> None:
    x = torch.tensor([0.0, 3.0, 10.0]).reshape(1, 1, 3).expand(2, 1, 3)
    cost = BrightELBOLoss()({"image": x}, output_of(x), STEP)
    assert cost["recon"] == 2 * (1 + 5 + 17)
    assert cost["plain_recon"] == 2 * 3
    assert cost["kl"] == 2 * 2 * 0.5
    assert cost["loss"] == cost["recon"] + STEP.beta * cost["kl"]


def test_without_gain_it_is_the_elbo_to_the_bit() -> None:
    x = torch.randn(2, 4, 8, 8, 8, generator=torch.Generator().manual_seed(0)) * 3
    output = VAEOutput(x.flip(2), torch.randn(2, 3), torch.randn(2, 3))
    plain = ELBOLoss()({"image": x}, output, STEP)
    bright = BrightELBOLoss(gain=0)({"image": x}, output, STEP)
    assert {name: bright[name] for name in plain} == plain


def test_half_precision_does_not_overflow() -> None:
    x = torch.full((1, 1, 64, 64), 20.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cost = BrightELBOLoss()({"image": x}, output_of(x), STEP)
    assert cost["recon"].dtype == torch.float32
    assert cost["recon"] == 17 * 64 * 64


@pytest.mark.parametrize(("key", "value"), [("gain", -1.0), ("span", float("inf"))])
def test_impossible_weights_are_refused(key: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"objective\.{key}="):
        BrightELBOLoss(**{key: value})

"""Claims about the ELBO of healthy tissue: what lies within a lesion costs nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vaelab.errors import UserError
from vaelab.models.vae import VAEOutput
from vaelab.objective.contract import Step, evaluate
from vaelab.objective.elbo import ELBOLoss
from vaelab.objective.masked_elbo import MaskedELBOLoss
from vaelab.testing.objective import check_objective

STEP = Step(beta=0.5, epoch=3, train_samples=2, stage="train")


def batch_of(lesion: slice) -> dict[str, Any]:
    """Two volumes of two series, 4³, with a lesion in some slices."""
    seg = torch.zeros(2, 1, 4, 4, 4, dtype=torch.uint8)
    seg[:, :, lesion] = 3
    image = torch.randn(2, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    return {"image": image, "seg": seg, "id": ["a", "b"]}


def output_of(x_hat: Tensor) -> VAEOutput:
    draw = torch.Generator().manual_seed(1)
    mu, logvar = torch.randn(2, 2, 3, generator=draw)
    return VAEOutput(x_hat, mu, logvar)


def test_without_a_lesion_it_is_the_elbo() -> None:
    batch = batch_of(slice(0, 0))
    output = output_of(torch.zeros(2, 2, 4, 4, 4))
    masked = evaluate(MaskedELBOLoss(), batch, output, STEP)
    for name, value in evaluate(ELBOLoss(), batch, output, STEP).items():
        torch.testing.assert_close(masked[name], value)
    assert float(masked["masked_share"]) == 0


def test_an_error_of_one_everywhere_costs_one_for_each_healthy_voxel() -> None:
    batch = batch_of(slice(0, 1))  # a quarter of 2 · 4³ values of each of two volumes
    sums = MaskedELBOLoss()(batch, output_of(batch["image"] + 1), STEP)
    assert float(sums["recon"]) == pytest.approx(2 * 2 * 64 * 3 / 4)
    assert float(sums["masked_share"]) == pytest.approx(2 * 0.25)


def test_the_decoder_is_taught_nothing_within_a_lesion() -> None:
    batch = batch_of(slice(0, 1))
    x_hat = torch.zeros(2, 2, 4, 4, 4, requires_grad=True)
    MaskedELBOLoss()(batch, output_of(x_hat), STEP)["loss"].backward()
    assert x_hat.grad is not None
    assert not x_hat.grad[:, :, 0].any()
    assert x_hat.grad[:, :, 1:].all()


def test_a_volume_that_is_not_finite_within_a_lesion_harms_nothing() -> None:
    batch = batch_of(slice(0, 1))
    batch["image"][:, :, 0] = torch.nan
    assert MaskedELBOLoss()(batch, output_of(torch.zeros(2, 2, 4, 4, 4)), STEP)["loss"].isfinite()


def test_batches_without_seg_are_refused() -> None:
    batch = batch_of(slice(0, 1))
    del batch["seg"]
    with pytest.raises(UserError, match=r"objective=masked_elbo: the batches have no seg"):
        MaskedELBOLoss()(batch, output_of(batch["image"]), STEP)


def test_it_keeps_the_promises_of_an_objective() -> None:
    check_objective(MaskedELBOLoss(), batch_of(slice(0, 1)), output_of(torch.zeros(2, 2, 4, 4, 4)))

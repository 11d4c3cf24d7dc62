"""A latent space that is used is left in peace; one that is not is warned of in time."""

from __future__ import annotations

import logging
import math

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from vaelab.models.encoder_decoder import EncoderDecoderVAE
from vaelab.models.vae import VAE
from vaelab.objective.annealing import Constant, Linear
from vaelab.training.latent_health import WARM_UP_EPOCHS, LatentHealth
from vaelab.training.module import VAELitModule

from .conftest import fit, tiny_vae


def collapsed_vae() -> VAE:
    """Every image is given the same posterior mean."""
    vae = tiny_vae()
    nn.init.zeros_(vae.mu_head.weight)
    return vae


class Shrinking(Callback):
    """Of 30 units, idles those that a list says, before each validation: a collapse to order."""

    def __init__(self, active: list[int]) -> None:
        self.active = active

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, VAELitModule)
        weight = pl_module.model.mu_head.weight.data
        weight.fill_(1 / 16)
        weight[self.active[trainer.current_epoch] :] = 0


def vae_of_30() -> VAE:
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(30, 16), nn.Unflatten(1, (1, 4, 4)))
    return EncoderDecoderVAE(encoder=nn.Flatten(), decoder=decoder, features=16, z_dim=30)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.message
        for record in caplog.records
        if record.name == "vaelab.training.latent_health" and record.levelno == logging.WARNING
    ]


def test_units_that_follow_the_image_are_active(caplog: pytest.LogCaptureFixture) -> None:
    # Both means are the image's value, 0 to 4: a variance of 2.5 each.
    trainer = fit(LatentHealth(), epochs=WARM_UP_EPOCHS + 2)
    assert trainer.callback_metrics["val/active_units"] == 2
    assert warnings_in(caplog) == []


def test_information_and_offset_of_the_latents_are_logged() -> None:
    # The means of the five images are (0, 0) to (4, 4): their mean is (2, 2).
    metrics = fit(LatentHealth(), epochs=1).callback_metrics
    assert metrics["val/aggregate_mean_norm"] == pytest.approx(2 * math.sqrt(2), rel=0.01)
    assert 0.3 < metrics["val/mutual_information"] <= math.log(5)
    collapsed = fit(LatentHealth(), epochs=1, model=collapsed_vae()).callback_metrics
    assert collapsed["val/mutual_information"] < 0.1  # only variances still tell images apart


def test_a_collapse_is_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    trainer = fit(LatentHealth(), epochs=WARM_UP_EPOCHS + 3, model=collapsed_vae())
    assert trainer.callback_metrics["val/active_units"] == 0
    (sentence,) = warnings_in(caplog)
    assert sentence.startswith(f"epoch {WARM_UP_EPOCHS}: 0 of 2 latent units vary over the valid")
    assert "lower train.kl_beta" in sentence
    assert "longer train.kl_annealing_epochs" in sentence


def test_the_warning_comes_before_the_last_unit_is_idle(caplog: pytest.LogCaptureFixture) -> None:
    active = [30, 25, 20, 10, 3, 1, 0]
    fit(LatentHealth(), Shrinking(active), epochs=len(active), model=vae_of_30())
    (sentence,) = warnings_in(caplog)
    assert sentence.startswith("epoch 4: 3 of 30 latent units vary over the validation samples, 30")


def test_units_that_are_few_but_stay_are_no_collapse(caplog: pytest.LogCaptureFixture) -> None:
    active = [1, 1, 2, 2, 3]
    fit(LatentHealth(), Shrinking(active), epochs=len(active), model=vae_of_30())
    assert warnings_in(caplog) == []


def test_some_units_falling_idle_are_no_collapse(caplog: pytest.LogCaptureFixture) -> None:
    active = [30, 25, 12, 8, 5]
    fit(LatentHealth(), Shrinking(active), epochs=len(active), model=vae_of_30())
    assert warnings_in(caplog) == []


def test_idle_units_of_the_first_epochs_are_no_collapse(caplog: pytest.LogCaptureFixture) -> None:
    fit(LatentHealth(), epochs=WARM_UP_EPOCHS, model=collapsed_vae())
    assert warnings_in(caplog) == []


def test_without_a_kl_to_pay_there_is_no_collapse(caplog: pytest.LogCaptureFixture) -> None:
    fit(LatentHealth(), epochs=4, model=collapsed_vae(), annealing=Constant(0.0))
    assert warnings_in(caplog) == []


def test_a_network_that_its_kl_crushes_is_warned_of_while_beta_still_rises(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ramp = 40
    fit(
        LatentHealth(),
        epochs=ramp,
        lr=0.02,
        annealing=Linear(kl_beta=1e4, kl_annealing_epochs=ramp),
    )
    (sentence,) = warnings_in(caplog)
    epoch = int(sentence.split(":")[0].removeprefix("epoch "))
    assert epoch < ramp / 2


def test_a_resumed_run_remembers_how_many_units_there_were_and_that_it_has_warned(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second, third = LatentHealth(), LatentHealth(), LatentHealth()
    fit(first, Shrinking([30]), epochs=1, model=vae_of_30())
    few = [3] * (WARM_UP_EPOCHS + 1)
    second.load_state_dict(first.state_dict())
    fit(second, Shrinking(few), epochs=len(few), model=vae_of_30())
    (sentence,) = warnings_in(caplog)
    assert "3 of 30 latent units vary over the validation samples, 30 did" in sentence
    third.load_state_dict(second.state_dict())
    fit(third, Shrinking(few), epochs=len(few), model=vae_of_30())
    assert warnings_in(caplog) == [sentence]

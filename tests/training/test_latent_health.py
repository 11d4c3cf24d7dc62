"""A latent space that is used is left in peace; one that is not is warned of in time."""

from __future__ import annotations

import logging
import math
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import Dataset

from vaelab.models.encoder_decoder import EncoderDecoderVAE
from vaelab.models.vae import VAE
from vaelab.objective.annealing import Annealing, Constant, Linear
from vaelab.training.latent_health import (
    DRAWS,
    SAMPLES_OF_ERRORS,
    SETTLED_STEPS,
    WARM_UP_EPOCHS,
    LatentHealth,
)
from vaelab.training.module import VAELitModule

from .conftest import Flat, fit, flat_vae


def early() -> LatentHealth:
    """One that does not wait for steps: there are three in an epoch here."""
    return LatentHealth(settled_steps=0)


def collapsed_vae() -> VAE:
    """Every image is given the same posterior mean."""
    vae = flat_vae()
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


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.message
        for record in caplog.records
        if record.name == "vaelab.training.latent_health" and record.levelno == logging.WARNING
    ]


def test_units_that_follow_the_image_are_active(caplog: pytest.LogCaptureFixture) -> None:
    # Both means are the image's value, 0 to 4: a variance of 2.5 each.
    trainer = fit(early(), epochs=WARM_UP_EPOCHS + 2)
    assert trainer.callback_metrics["val/active_units"] == 2
    assert warnings_in(caplog) == []


def test_information_and_offset_of_the_latents_are_logged() -> None:
    # The means of the five images are (0, 0) to (4, 4): their mean is (2, 2).
    metrics = fit(early(), epochs=1).callback_metrics
    assert metrics["val/aggregate_mean_norm"] == pytest.approx(2 * math.sqrt(2), rel=0.01)
    assert 0.3 < metrics["val/mutual_information"] <= math.log(5)
    collapsed = fit(early(), epochs=1, model=collapsed_vae()).callback_metrics
    assert collapsed["val/mutual_information"] < 0.1  # only variances still tell images apart


def test_a_collapse_is_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    trainer = fit(early(), epochs=WARM_UP_EPOCHS + 3, model=collapsed_vae())
    assert trainer.callback_metrics["val/active_units"] == 0
    (sentence,) = warnings_in(caplog)
    assert sentence.startswith(f"epoch {WARM_UP_EPOCHS}: 0 of 2 latent units vary over the valid")
    assert "lower train.kl_beta" in sentence
    assert "longer train.kl_annealing_epochs" in sentence


def test_the_warning_comes_before_the_last_unit_is_idle(caplog: pytest.LogCaptureFixture) -> None:
    active = [30, 25, 20, 10, 3, 1, 0]
    fit(early(), Shrinking(active), epochs=len(active), model=flat_vae(30))
    (sentence,) = warnings_in(caplog)
    assert sentence.startswith("epoch 4: 3 of 30 latent units vary over the validation samples, 30")


def test_units_that_are_few_but_stay_are_no_collapse(caplog: pytest.LogCaptureFixture) -> None:
    active = [1, 1, 2, 2, 3]
    fit(early(), Shrinking(active), epochs=len(active), model=flat_vae(30))
    assert warnings_in(caplog) == []


def test_some_units_falling_idle_are_no_collapse(caplog: pytest.LogCaptureFixture) -> None:
    active = [30, 25, 12, 8, 5]
    fit(early(), Shrinking(active), epochs=len(active), model=flat_vae(30))
    assert warnings_in(caplog) == []


def test_idle_units_of_the_first_epochs_are_no_collapse(caplog: pytest.LogCaptureFixture) -> None:
    fit(early(), epochs=WARM_UP_EPOCHS, model=collapsed_vae())
    assert warnings_in(caplog) == []


def test_without_a_kl_to_pay_there_is_no_collapse(caplog: pytest.LogCaptureFixture) -> None:
    fit(early(), epochs=4, model=collapsed_vae(), annealing=Constant(0.0))
    assert warnings_in(caplog) == []


def test_a_network_that_its_kl_crushes_is_warned_of_while_beta_still_rises(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ramp = 40
    fit(
        early(),
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
    first, second, third = early(), early(), early()
    fit(first, Shrinking([30]), epochs=1, model=flat_vae(30))
    few = [3] * (WARM_UP_EPOCHS + 1)
    second.load_state_dict(first.state_dict())
    fit(second, Shrinking(few), epochs=len(few), model=flat_vae(30))
    (sentence,) = warnings_in(caplog)
    assert "3 of 30 latent units vary over the validation samples, 30 did" in sentence
    third.load_state_dict(second.state_dict())
    fit(third, Shrinking(few), epochs=len(few), model=flat_vae(30))
    assert warnings_in(caplog) == [sentence]


def test_a_network_of_few_steps_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    epochs = SETTLED_STEPS // 3  # of three steps
    fit(LatentHealth(), epochs=epochs, model=collapsed_vae())
    assert warnings_in(caplog) == []
    fit(LatentHealth(), epochs=epochs + 1, model=collapsed_vae())
    assert warnings_in(caplog)[0].startswith(f"epoch {epochs}: 0 of 2")


# --- is z decoded at all?


class Constants(nn.Module):
    """All voxels are the first unit, times ``slope``, plus 1."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.calls: list[int] = []

    def forward(self, z: Tensor) -> Tensor:
        self.calls.append(len(z))
        return (self.slope * z[:, 0] + 1)[:, None, None, None].expand(-1, 1, 4, 4)


def vae_of_constants(slope: float) -> tuple[EncoderDecoderVAE, Constants]:
    """Its mean is the image's value, 0 to 4, which is decoded to slope · value + 1."""
    decoder = Constants(slope)
    vae = EncoderDecoderVAE(encoder=nn.Flatten(), decoder=decoder, features=16, z_dim=2)
    nn.init.constant_(vae.mu_head.weight, 1 / 16)
    nn.init.zeros_(vae.mu_head.bias)
    return vae, decoder


def test_errors_at_mu_at_zero_and_at_draws_are_those_of_what_is_decoded() -> None:
    vae, _ = vae_of_constants(slope=2)
    found = fit(LatentHealth(), model=vae, lr=1e-12).callback_metrics
    images = torch.arange(5.0)
    draws = torch.randn(DRAWS, 2, generator=torch.Generator().manual_seed(0))[:, 0]
    decoded = 2 * draws + 1  # (4,)
    expected = {
        "mu": (images - (2 * images + 1)).square().mean(),
        "zero": (images - 1).square().mean(),
        "draw": (images[:, None] - decoded).square().mean(),
    }
    for place, error in expected.items():
        assert found[f"val/recon_at_{place}"].item() == pytest.approx(error.item(), rel=1e-6), place
    response = 16 * (2 * images).square().mean()  # of 16 voxels: 2 · value + 1 is not 1
    assert found["val/response_to_mu"].item() == pytest.approx(response.item(), rel=1e-6)


def test_units_are_described_by_variance_and_by_kl_under_names_of_their_own() -> None:
    # Both means are 0 to 4: a variance of 2.5. The KL of N(m, s²) is (m² + s² - 1 - log s²) / 2.
    vae, _ = vae_of_constants(slope=0)
    nn.init.zeros_(vae.logvar_head.weight)
    nn.init.zeros_(vae.logvar_head.bias)
    found = fit(LatentHealth(), model=vae, lr=1e-12).callback_metrics
    assert found["val/mu_variance"] == pytest.approx(2.5)
    assert found["val/unit_kl_max"] == pytest.approx(0.5 * (0 + 1 + 4 + 9 + 16) / 5)
    assert found["val/unit_kl_median"] == found["val/unit_kl_max"]
    assert found["val/paid_units"] == found["val/active_units"] == 2


def test_a_unit_that_is_off_zero_for_all_alike_is_paid_for_and_not_active() -> None:
    vae, _ = vae_of_constants(slope=0)
    nn.init.zeros_(vae.mu_head.weight)
    nn.init.constant_(vae.mu_head.bias, 3.0)
    found = fit(LatentHealth(), model=vae, lr=1e-12).callback_metrics
    assert (found["val/paid_units"], found["val/active_units"]) == (2, 0)


@pytest.mark.parametrize("samples", [5, 50])
def test_it_costs_five_images_an_epoch_however_many_samples_there_are(samples: int) -> None:
    counts = []
    for callbacks in ([], [LatentHealth()]):
        vae, decoder = vae_of_constants(slope=1)
        val = Flat()
        val.values = [1.0] * samples
        fit(*callbacks, model=vae, lr=1e-12, val=val)
        counts.append(sum(decoder.calls))
    assert counts[1] - counts[0] == DRAWS + 1


def test_errors_are_of_the_first_samples() -> None:
    vae, _ = vae_of_constants(slope=0)  # decodes 1
    val = Flat()
    val.values = [1.0] * SAMPLES_OF_ERRORS + [100.0] * 10
    found = fit(LatentHealth(), model=vae, lr=1e-12, val=val).callback_metrics
    assert found["val/recon_at_mu"] == pytest.approx(0, abs=1e-9)


# --- a decoder that can do without z

SIDE = 8
ROW, COLUMN = torch.meshgrid(*[torch.linspace(-1, 1, SIDE)] * 2, indexing="ij")


class Anatomy(Dataset[dict[str, Any]]):
    """Images of one pattern, each with noise of its own, and brighter or darker by ``varies``."""

    def __init__(self, count: int, seed: int, varies: float) -> None:
        draw = torch.Generator().manual_seed(seed)
        pattern = torch.sin(3 * COLUMN) * torch.cos(2 * ROW)
        noise = 0.3 * torch.randn(count, 1, SIDE, SIDE, generator=draw)
        self.images = pattern + noise + varies * torch.randn(count, 1, 1, 1, generator=draw)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "id": str(index)}


class OfCoordinates(nn.Module):
    """Decodes every pixel from z and the pixel's place (Watters et al. 2019, arXiv:1901.07017)."""

    def __init__(self, z_dim: int) -> None:
        super().__init__()
        self.register_buffer("places", torch.stack([ROW, COLUMN]).flatten(1).T)  # (64, 2)
        self.network = nn.Sequential(nn.Linear(z_dim + 2, 64), nn.Tanh(), nn.Linear(64, 1))

    def forward(self, z: Tensor) -> Tensor:
        spread = z[:, None].expand(-1, SIDE * SIDE, -1)  # (B, 64, z)
        places = self.places.expand(len(z), -1, -1)  # (B, 64, 2)
        return self.network(torch.cat([spread, places], 2)).reshape(-1, 1, SIDE, SIDE)


def fit_coordinates(varies: float, annealing: Annealing, seed: int) -> L.Trainer:
    """Three epochs of 200 steps: enough to be warned of in the last."""
    torch.manual_seed(seed)
    vae = EncoderDecoderVAE(nn.Flatten(), OfCoordinates(4), features=SIDE * SIDE, z_dim=4)
    sets = {"train": Anatomy(400, 0, varies), "val": Anatomy(20, 1, varies)}
    return fit(LatentHealth(), epochs=3, model=vae, lr=0.01, annealing=annealing, **sets)


ANNEALINGS = [Constant(1.0), Constant(4.0), Linear(kl_beta=1.0, kl_annealing_epochs=10)]


@pytest.mark.parametrize("annealing", ANNEALINGS)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_decoder_that_needs_coordinates_alone_is_warned_of_in_the_third_epoch(
    annealing: Annealing, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    fit_coordinates(0, annealing, seed)
    (sentence,) = warnings_in(caplog)
    assert sentence.startswith("epoch 2: ")
    # At a high beta z is not even encoded any more, which is the first thing to say.
    assert ("the decoder ignores z" in sentence) or ("the posterior collapses" in sentence)


@pytest.mark.parametrize("annealing", ANNEALINGS)
def test_the_same_decoder_of_images_that_differ_makes_use_of_z(
    annealing: Annealing, caplog: pytest.LogCaptureFixture
) -> None:
    found = fit_coordinates(0.5, annealing, seed=0).callback_metrics
    assert found["val/recon_at_mu"] < 0.6 * found["val/recon_at_zero"]
    assert warnings_in(caplog) == []

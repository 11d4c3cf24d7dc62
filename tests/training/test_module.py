"""The training step logs exact sums over an epoch, at the beta of the epoch.

The network here hardly changes, so that every number can be derived by hand: its
posterior mean is 1 and its log-variance 0 for each of two latent units, whatever the image, and
its reconstruction is 0. A sample of 16 pixels of value v then costs

    recon = 16 v²,   kl = 2 · ½ · 1² = 1 nat.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vaelab.errors import UserError
from vaelab.models.conv2d import Conv2dVAE
from vaelab.models.encoder_decoder import EncoderDecoderVAE
from vaelab.models.resnet3d import ResNet3dVAE
from vaelab.models.vae import VAE, VAEOutput
from vaelab.objective.annealing import Annealing, Constant, Linear
from vaelab.objective.contract import Step
from vaelab.objective.elbo import compute_elbo
from vaelab.training.checkpoint import OBJECTIVE, weights_in
from vaelab.training.optimizer import Optimized

from .conftest import Flat, lit_module, quiet_trainer

TINY = 1e-12  # a learning rate: one step of AdamW moves a weight by about as much

# Five samples of 16 pixels, of values 1 to 5, two at a time: batches of 2, 2 and 1.
SAMPLES = Flat({n: n + 1.0 for n in range(5)})
RECON = 16 * (1 + 4 + 9 + 16 + 25)  # = 880
KL = 5 * 1.0


class Frozen(EncoderDecoderVAE):
    """The network of the derivation above; its z is certain even while training."""

    def __init__(self) -> None:
        decoder = nn.Sequential(nn.Linear(2, 16), nn.Unflatten(1, (1, 4, 4)))
        super().__init__(encoder=nn.Flatten(), decoder=decoder, features=16, z_dim=2)
        for weight in self.parameters():
            nn.init.zeros_(weight)
        nn.init.ones_(self.mu_head.bias)

    def reparameterize(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """No sampling."""
        return mu


class History(Callback):
    """Keeps the metrics of every epoch."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Copy them."""
        self.epochs.append({name: float(v) for name, v in trainer.callback_metrics.items()})


def fit(annealing: Annealing, epochs: int, batch_size: int = 2) -> list[dict[str, float]]:
    """Metrics of each epoch; training and validation see the same five samples."""
    history = History()
    trainer = quiet_trainer(history, max_epochs=epochs)
    loader = DataLoader(SAMPLES, batch_size=batch_size)
    trainer.fit(lit_module(Frozen(), annealing, lr=TINY), loader, loader)
    return history.epochs


@pytest.fixture(scope="module")
def rising() -> list[dict[str, float]]:
    """Three epochs under a ramp from 0 over 2 to the target 4."""
    return fit(Linear(kl_beta=4.0, kl_annealing_epochs=2), epochs=3)


# --- exact sums


@pytest.mark.parametrize("stage", ["train", "val"])
def test_recon_and_kl_are_sums_over_the_samples_of_an_epoch(
    rising: list[dict[str, float]], stage: str
) -> None:
    for epoch in rising:
        assert epoch[f"{stage}/recon"] == pytest.approx(RECON)
        assert epoch[f"{stage}/kl"] == pytest.approx(KL)


@pytest.mark.parametrize("stage", ["train", "val"])
def test_the_loss_takes_the_beta_of_its_epoch(rising: list[dict[str, float]], stage: str) -> None:
    assert [epoch[f"{stage}/beta"] for epoch in rising] == pytest.approx([0, 2, 4])
    assert [epoch[f"{stage}/loss"] for epoch in rising] == pytest.approx(
        [880, 880 + 2 * 5, 880 + 4 * 5]
    )


def test_neg_elbo_takes_the_target_beta_from_the_first_epoch(
    rising: list[dict[str, float]],
) -> None:
    assert [epoch["val/neg_elbo"] for epoch in rising] == pytest.approx([880 + 4 * 5] * 3)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
def test_sums_do_not_depend_on_the_batch_size(batch_size: int) -> None:
    (epoch,) = fit(Constant(1.0), epochs=1, batch_size=batch_size)
    assert epoch["train/loss"] == pytest.approx(RECON + KL)
    assert epoch["val/loss"] == pytest.approx(RECON + KL)


def test_means_weigh_every_sample_alike(rising: list[dict[str, float]]) -> None:
    # The mean of the three batches' means would be (2.5 + 12.5 + 25) / 3 = 13.3.
    for stage in ("train", "val"):
        assert rising[0][f"{stage}/recon_per_voxel"] == pytest.approx(RECON / (5 * 16))  # = 11
        assert rising[0][f"{stage}/kl_per_sample"] == pytest.approx(1.0)


def test_exactly_these_names_are_logged(rising: list[dict[str, float]]) -> None:
    names = {"loss", "recon", "kl", "beta", "recon_per_voxel", "kl_per_sample"}
    expected = {f"{stage}/{name}" for stage in ("train", "val") for name in names}
    assert set(rising[0]) == expected | {"val/neg_elbo"}


# --- the step


def test_every_epoch_at_a_real_learning_rate_lowers_the_loss() -> None:
    history = History()
    trainer = quiet_trainer(history, max_epochs=5)
    loader = DataLoader(SAMPLES, batch_size=2)
    # 15 steps of 0.01 take x_hat from 0 to about 0.5, well short of the best constant, 3.
    trainer.fit(lit_module(Frozen(), Constant(0.0), lr=0.01), loader, loader)
    losses = [epoch["val/recon"] for epoch in history.epochs]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * RECON  # 16 · (0.5² + 1.5² + 2.5² + 3.5² + 4.5²) = 660


def test_the_module_forwards_to_its_network() -> None:
    x = torch.ones(2, 1, 4, 4)
    output = lit_module(Frozen(), Constant(1.0), lr=TINY).eval()(x)
    assert isinstance(output, VAEOutput)
    assert torch.equal(output.x_hat, torch.zeros_like(x))
    assert torch.equal(output.mu, torch.ones(2, 2))


def test_the_optimiser_has_all_weights_of_the_network() -> None:
    module = lit_module(Frozen(), Constant(1.0), lr=3e-4)
    module.trainer = quiet_trainer(max_epochs=1)
    optimiser = module.configure_optimizers()
    assert isinstance(optimiser, torch.optim.AdamW)
    (group,) = optimiser.param_groups
    assert (group["lr"], group["weight_decay"]) == (3e-4, 0.01)
    assert len(group["params"]) == len(list(Frozen().parameters()))


class Rates(Callback):
    """Keeps the learning rate of every epoch."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Copy it."""
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def rates(epochs: int, **changes: Any) -> list[float]:
    seen = Rates()
    trainer = quiet_trainer(seen, max_epochs=epochs)
    loader = DataLoader(SAMPLES, batch_size=5)
    module = lit_module(Frozen(), Constant(0.0), lr=1.0, lr_final=0.2)
    trainer.fit(module, loader, loader, **changes)
    return seen.rates


def test_the_learning_rate_falls_along_half_a_cosine_to_its_final_share() -> None:
    # 0.2 + 0.8 · (1 + cos(π e / 4)) / 2; at epoch 4, which is not run, it would be 0.2.
    half = 0.8 * (1 + math.cos(math.pi / 4)) / 2
    assert rates(4) == pytest.approx([1.0, 0.2 + half, 0.6, 1.0 - half])


def test_a_run_that_is_resumed_for_more_epochs_does_not_raise_its_rate_again(
    tmp_path: Path,
) -> None:
    trainer = quiet_trainer(max_epochs=4)
    loader = DataLoader(SAMPLES, batch_size=5)
    trainer.fit(lit_module(Frozen(), Constant(0.0), lr=1.0, lr_final=0.2), loader, loader)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    went_on = rates(8, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    whole = [0.2 + 0.8 * (1 + math.cos(math.pi * epoch / 8)) / 2 for epoch in range(8)]
    assert went_on[1:] == pytest.approx(whole[5:])


CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@pytest.mark.parametrize(
    ("model", "shape", "layout"),
    [
        (ResNet3dVAE(2, 4, 3, 2, (8, 8, 8)), (2, 8, 8, 8), torch.channels_last_3d),
        (Conv2dVAE(2, 4, 3, (32, 32)), (2, 32, 32), torch.channels_last),
    ],
    ids=["3D", "2D"],
)
def test_channels_last_changes_the_layout_and_not_the_loss(
    model: VAE, shape: tuple[int, ...], layout: torch.memory_format
) -> None:
    draw = torch.Generator().manual_seed(0)
    data = [{"image": torch.rand(*shape, generator=draw), "id": str(n)} for n in range(3)]
    layouts: dict[bool, set[bool]] = {False: set(), True: set()}
    results = []
    for channels_last in (False, True):
        fresh = copy.deepcopy(model)
        for part in fresh.modules():
            # Weights of a single voxel are in both layouts at once.
            if isinstance(part, CONVOLUTIONS) and max(part.kernel_size) > 1:
                part.register_forward_hook(
                    lambda part, _, out, way=channels_last: layouts[way].update(
                        tensor.is_contiguous(memory_format=layout) for tensor in (out, part.weight)
                    )
                )
        results += quiet_trainer().validate(
            lit_module(fresh, Constant(1.0), TINY, channels_last=channels_last),
            DataLoader(data, batch_size=3),  # type: ignore[arg-type]  # a list is a data set
            verbose=False,
        )
    # Throughout: the decoder too, which begins at a vector.
    assert layouts == {False: {False}, True: {True}}
    assert results[1] == pytest.approx(results[0], rel=1e-4)


@pytest.mark.parametrize("lr", [0.0, -1e-3, math.nan])
def test_a_learning_rate_that_is_not_above_0_is_refused(lr: float) -> None:
    with pytest.raises(UserError, match=rf"train\.lr={lr}: must be above 0 and finite; try 1e-4"):
        lit_module(Frozen(), Constant(1.0), lr=lr)


# --- the objective


class Scaled(nn.Module):
    """Squared error over a learned variance, s = exp(a): recon / s + 16 a for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(()))
        self.steps: list[Step] = []

    def forward(self, batch: Any, output: Any, step: Step) -> dict[str, Tensor]:
        self.steps.append(step)
        sums = compute_elbo(batch["image"], *output[:3], step.beta)
        noise = 16 * len(batch["image"]) * self.a
        return {**sums, "loss": sums["recon"] * torch.exp(-self.a) + noise, "noise": noise}


def fit_scaled(lr: float, epochs: int = 3, batch_size: int = 2) -> tuple[Scaled, History]:
    objective, history = Scaled(), History()
    trainer = quiet_trainer(history, max_epochs=epochs)
    loader = DataLoader(SAMPLES, batch_size=batch_size)
    module = lit_module(Frozen(), Linear(1.0, 2), lr, objective=objective)
    trainer.fit(module, loader, loader)
    return objective, history


def test_further_entries_of_an_objective_are_logged_as_sums() -> None:
    objective, history = fit_scaled(TINY)
    objective.a.data.fill_(0.0)
    for epoch in history.epochs:
        assert epoch["val/recon"] == pytest.approx(RECON)
        assert epoch["val/noise"] == pytest.approx(0, abs=1e-6)
        assert "train/noise" in epoch


def test_weights_of_an_objective_are_trained_and_kept_in_checkpoints(tmp_path: Path) -> None:
    # d loss / da at a = 0 is 16·5 − 880 over all samples: AdamW's first step raises a by lr.
    objective, _ = fit_scaled(0.1, epochs=1, batch_size=5)
    assert objective.a.item() == pytest.approx(0.1)
    module = lit_module(Frozen(), Constant(1.0), TINY, objective=objective)
    state = {f"objective.{name}": value for name, value in objective.state_dict().items()}
    checkpoint = {"state_dict": module.state_dict()}
    assert set(state) < set(checkpoint["state_dict"])
    assert weights_in(checkpoint, OBJECTIVE).keys() == {"a"}
    assert "a" not in weights_in(checkpoint)


def test_an_objective_is_given_the_state_of_training() -> None:
    objective, _ = fit_scaled(TINY)
    stages = [(step.stage, step.epoch, step.beta) for step in objective.steps[::3]]
    assert stages == [
        ("train", 0, 0.0), ("val", 0, 0.0), ("train", 1, 0.5), ("val", 1, 0.5),
        ("train", 2, 1.0), ("val", 2, 1.0),
    ]  # fmt: skip
    assert {step.train_samples for step in objective.steps} == {5}


def test_two_accumulated_batches_take_the_step_of_their_sum() -> None:
    def weights(batch_size: int, batches: int) -> dict[str, Tensor]:
        loader = DataLoader(SAMPLES, batch_size=batch_size)
        trainer = quiet_trainer(max_epochs=1, accumulate_grad_batches=batches)
        plain = lit_module(Frozen(), Constant(1.0), 1e-3)
        plain.optimizer = lambda weights, epochs: Optimized(torch.optim.SGD(weights, 1e-6))
        trainer.fit(plain, loader, loader)
        return plain.model.state_dict()

    whole, parts = weights(5, 1), weights(3, 2)
    assert not torch.equal(whole["mu_head.bias"], Frozen().state_dict()["mu_head.bias"])
    for name, weight in whole.items():
        assert torch.allclose(parts[name], weight, rtol=1e-5, atol=1e-8), name

"""A failing run is stopped, or a warning names what is wrong, before time is lost."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn

from vaelab.errors import UserError
from vaelab.training.health import StepHealth

from .conftest import Flat, fit

# --- numbers that are not finite


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_voxel_that_is_not_finite_names_its_batch_and_the_data(value: float) -> None:
    with pytest.raises(UserError) as refusal:
        fit(StepHealth(40), train=Flat({3: value}), epochs=2)
    message = str(refusal.value)
    assert message.startswith("epoch 0, batch 1, step 1: image, recon, ")
    assert "not finite in the batch of site_a/patient2, site_a/patient3" in message
    assert "the data hold NaN or infinite values" in message


def test_a_value_that_is_not_finite_in_validation_is_named_too() -> None:
    with pytest.raises(UserError) as refusal:
        fit(StepHealth(40), val=Flat({4: math.nan}))
    assert "epoch 0, validation batch 2: image" in str(refusal.value)
    assert "the batch of site_a/patient4" in str(refusal.value)


def test_a_diverging_training_is_distinguished_from_bad_data() -> None:
    with pytest.raises(UserError) as refusal:
        fit(StepHealth(40), lr=1e30, epochs=3)
    assert "image" not in str(refusal.value)
    assert "recon" in str(refusal.value)
    assert "lower train.lr" in str(refusal.value)


def test_finite_numbers_pass() -> None:
    fit(StepHealth(40), epochs=2)


class Batches(Callback):
    """Counts the training batches that have begun."""

    def __init__(self) -> None:
        self.count = 0

    def on_train_batch_start(self, *_: Any) -> None:
        self.count += 1


@pytest.mark.parametrize(("every", "begun"), [(1, 1), (2, 2), (50, 3)])  # three batches an epoch
def test_batches_that_are_checked_together_name_the_first_bad_batch_before_the_epochs_end(
    every: int, begun: int
) -> None:
    batches = Batches()
    with pytest.raises(UserError, match="epoch 0, batch 0, step 0: image"):
        fit(StepHealth(40, every), batches, train=Flat({0: math.nan}), epochs=2)
    assert batches.count == begun


# --- mixed precision


class Scaler:
    """The part of GradScaler that matters here; ``overflows`` says which steps overflow."""

    def __init__(self, overflows: list[bool], scale: float = 8.0) -> None:
        self.overflows = iter(overflows)
        self.value = scale

    def is_enabled(self) -> bool:
        return True

    def scale(self, tensor: Tensor) -> Tensor:
        return tensor * self.value

    def unscale_(self, optimizer: Any) -> None:
        for group in optimizer.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.grad /= self.value

    def step(self, optimizer: Any, **kwargs: Any) -> Any:
        self.skips = next(self.overflows)
        return None if self.skips else optimizer.step(**kwargs)

    def update(self) -> None:
        if self.skips:
            self.value /= 2

    def state_dict(self) -> dict[str, Any]:
        return {}


class Logged(Callback):
    """Keeps what an epoch has logged about the scale."""

    def __init__(self) -> None:
        self.epochs: list[tuple[float, ...]] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        metrics = trainer.callback_metrics
        names = ("train/grad_scale", "train/skipped_steps")
        self.epochs.append(tuple(float(metrics[name]) for name in names))


def mixed(overflows: list[bool]) -> dict[str, Any]:
    plugin = MixedPrecision("16-mixed", "cpu", Scaler(overflows))  # type: ignore[arg-type]
    plugin.autocast_context_manager = lambda: torch.autocast("cpu", enabled=False)  # type: ignore[method-assign]
    return {"plugins": [plugin]}


def test_the_scale_and_the_skipped_steps_of_each_epoch_are_logged() -> None:
    logged = Logged()
    overflows = [True, False, True, False, False, True]  # three batches an epoch
    fit(StepHealth(40), logged, epochs=2, **mixed(overflows))
    assert logged.epochs == [(2.0, 2.0), (1.0, 1.0)]  # 8 / 2², and again / 2


def test_as_many_skipped_steps_as_are_allowed_are_allowed() -> None:
    fit(StepHealth(3), epochs=2, **mixed([True, True, True, False, True, True]))


def test_more_skipped_steps_in_a_row_stop_the_run_even_across_epochs() -> None:
    with pytest.raises(UserError) as refusal:
        fit(StepHealth(3), epochs=2, **mixed([False, True, True, True, True, False]))
    message = str(refusal.value)
    assert message.startswith("epoch 1, batch 1, step 4: 4 steps in a row were skipped, more than ")
    assert "train.max_skipped_steps=3" in message
    assert "at a scale of 0.5" in message


def test_pytorchs_own_scaler_halves_on_overflow_and_its_scale_is_read_without_waiting() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    weight = nn.Parameter(torch.ones(1))
    optimiser = torch.optim.AdamW([weight], fused=True)
    scaler.scale(weight * math.inf).sum().backward()
    scaler.step(optimiser)
    scaler.update()
    assert scaler.scale(torch.ones(())).item() == 2.0
    assert weight.item() == 1.0


def test_full_precision_logs_no_scale() -> None:
    assert not any("scale" in name for name in fit(StepHealth(40)).callback_metrics)

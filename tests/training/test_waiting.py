"""No step waits for its device: a number is fetched from it once an epoch, not once a step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader

from vaelab.models.conv2d import Conv2dVAE
from vaelab.models.resnet3d import ResNet3dVAE
from vaelab.models.vae import VAE
from vaelab.objective.annealing import Linear
from vaelab.training.callbacks import SeedEachBatch
from vaelab.training.health import StepHealth

from .conftest import lit_module, quiet_trainer

FETCHING = {
    torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.cpu, torch.Tensor.numpy,
    torch.Tensor.nonzero, torch.Tensor.__bool__, torch.Tensor.__float__, torch.Tensor.__int__,
}  # fmt: skip
"""What on a GPU waits for all queued work."""


class Fetches(TorchFunctionMode):
    """Counts how often Python asks a tensor for its numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in FETCHING
        return func(*args, **(kwargs or {}))


def fetches(model: VAE, shape: tuple[int, ...], steps: int) -> int:
    samples = [{"image": torch.rand(shape), "id": f"subject{n}"} for n in range(steps)]
    callbacks = SeedEachBatch(0), StepHealth(3, steps_between_checks=50)
    trainer = quiet_trainer(*callbacks, max_epochs=1)
    module = lit_module(model, Linear(1.0, 2), 1e-4, train_samples=steps, val_samples=1)
    with Fetches() as mode:
        trainer.fit(module, DataLoader(samples), DataLoader(samples[:1]))
    assert trainer.global_step == steps
    return mode.count


@pytest.mark.parametrize("system", ["volumes", "radiographs"])
def test_more_steps_fetch_no_more_numbers(system: str) -> None:
    volumes = ResNet3dVAE(base_filters=8, z_dim=4, depth=2, roi_size=(8, 8, 8))
    radiographs = Conv2dVAE(z_dim=4, base_filters=8, image_size=(32, 32))
    model, shape = {
        "volumes": (volumes, (4, 8, 8, 8)), "radiographs": (radiographs, (1, 32, 32)),
    }[system]  # fmt: skip
    assert fetches(model, shape, steps=12) == fetches(model, shape, steps=3)

"""A schedule of beta, an optimiser and a callback."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch.nn import Parameter

from vaelab.training.optimizer import Optimized


@dataclass(frozen=True)
class Sigmoid:
    """Beta rises along a half-cosine."""

    kl_beta: float
    kl_annealing_epochs: int

    @property
    def target(self) -> float:
        """After the ramp."""
        return self.kl_beta

    @property
    def ramp_epochs(self) -> int:
        """Length of the ramp."""
        return self.kl_annealing_epochs

    def __call__(self, epoch: int) -> float:
        """Beta of one epoch."""
        if epoch >= self.kl_annealing_epochs:
            return self.kl_beta
        return self.kl_beta * (1 - math.cos(math.pi * epoch / self.kl_annealing_epochs)) / 2


@dataclass(frozen=True)
class Momentum:
    """SGD with momentum on gradients of unit norm."""

    lr: float

    def __call__(self, parameters: Iterable[Parameter], epochs: int) -> Optimized:
        """An optimiser without a schedule."""
        return Optimized(torch.optim.SGD(parameters, self.lr, momentum=0.9))


class NoteEpochs(Callback):
    """Writes a line for each epoch."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the line."""
        with self.path.open("a") as file:
            file.write(f"{trainer.current_epoch}\n")

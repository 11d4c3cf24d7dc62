"""What makes an epoch the best: is it reported at all? Asked before the first step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.data import default_collate

from vaelab.errors import UserError
from vaelab.objective.contract import evaluate
from vaelab.training.module import VAELitModule

DERIVED = ("neg_elbo", "recon_per_voxel", "kl_per_sample")
"""What the module reports beside the entries of the objective."""


def monitors(sums: Mapping[str, Any]) -> list[str]:
    """Metrics that ``train.monitor`` may name, the smaller the better.

    Args:
        sums: the entries of the objective; their names alone count.
    """
    return [f"val/{name}" for name in [*sums, *DERIVED]]


class MonitorCheck(Callback):
    """Asks the objective about one validation sample what it reports, and whether it works at all.

    Args:
        monitor: what the best epoch is chosen by.
    """

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look, before anything is learned.

        Raises:
            UserError: for a monitor that nothing will report, listing what will be.
        """
        assert isinstance(pl_module, VAELitModule)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        batch = pl_module.transfer_batch_to_device(
            default_collate([data.dataset("val")[0]]), pl_module.device, 0
        )
        with _judging(pl_module), torch.no_grad():
            output = pl_module(batch["image"])
            sums = evaluate(pl_module.objective, batch, output, pl_module.step_of("val"))
        known = monitors(sums)
        if self.monitor not in known:
            raise UserError(f"train.monitor={self.monitor}: must be one of {', '.join(known)}")


@contextmanager
def _judging(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards each part in the mode that it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training

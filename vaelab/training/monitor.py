"""Check ``train.monitor``, by which the best epoch is chosen, before the first step."""

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
"""What the module logs in addition to the entries of the objective."""


def monitors(sums: Mapping[str, Any]) -> list[str]:
    """Metrics that ``train.monitor`` may name, the smaller the better.

    Args:
        sums: the entries of the objective; only their names are used.
    """
    return [f"val/{name}" for name in [*sums, *DERIVED]]


class MonitorCheck(Callback):
    """Evaluates the objective on a validation sample, to see what it reports and that it works.

    Args:
        monitor: name of the metric by which the best epoch is chosen.
    """

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check before the first step.

        Raises:
            UserError: for a monitor that will not be logged, listing those that will.
        """
        assert isinstance(pl_module, VAELitModule)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        batch = pl_module.transfer_batch_to_device(
            default_collate([data.dataset("val")[0]]), pl_module.device, 0
        )
        with _evaluation_mode(pl_module), torch.no_grad():
            output = pl_module(batch["image"])
            sums = evaluate(pl_module.objective, batch, output, pl_module.step_of("val"))
        known = monitors(sums)
        if self.monitor not in known:
            raise UserError(f"train.monitor={self.monitor}: must be one of {', '.join(known)}")


@contextmanager
def _evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode, and afterwards restore the mode of each submodule."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training

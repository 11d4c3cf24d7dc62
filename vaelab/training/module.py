"""The only training step: a VAE, an annealing schedule, an optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from vaelab.errors import UserError
from vaelab.models.vae import VAE, VAEOutput
from vaelab.objective.annealing import Annealing
from vaelab.objective.elbo import compute_elbo
from vaelab.training.layout import CHANNELS_LAST, to_channels_last

MONITORS = ("val/neg_elbo", "val/loss", "val/recon", "val/kl", "val/recon_per_voxel")
"""Logged metrics of which the smallest is the best, for ``train.monitor``."""


class VAELitModule(L.LightningModule):
    """Trains a VAE on the negative ELBO at the beta of the epoch.

    Logged for each stage, as exact sums over all samples of the epoch: ``loss``, ``recon``,
    ``kl`` and, for the epoch, ``beta``. Beside them ``recon_per_voxel`` and
    ``kl_per_sample``, which compare across data sets, and ``val/neg_elbo``: the loss at the
    *target* beta, which compares across epochs while beta still rises. ``LogEpoch`` hands them
    to the loggers, all of an epoch at once.

    Args:
        model: the network.
        annealing: beta as a function of the epoch.
        lr: learning rate of AdamW.
        channels_last: keep images and weights channels-last in memory, for speed.
        augment: random change of a training batch, (B, C, ...) → the same shape, or None.
        lr_final: share of ``lr`` at the end of a half-cosine over all epochs; 1 keeps ``lr``.

    Raises:
        UserError: for a learning rate that is not above 0.
    """

    def __init__(
        self,
        model: VAE,
        annealing: Annealing,
        lr: float,
        channels_last: bool = False,
        augment: Callable[[Tensor], Tensor] | None = None,
        lr_final: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 < lr < math.inf:
            raise UserError(f"train.lr={lr}: must be above 0 and finite; try 1e-4")
        self.model = model
        self.annealing = annealing
        self.lr = lr
        self.channels_last = channels_last
        self.augment = augment
        self.lr_final = lr_final
        if channels_last:
            to_channels_last(model)

    def forward(self, x: Tensor) -> VAEOutput:
        """Reconstruct a batch; see ``VAE.forward``."""
        output: VAEOutput = self.model(x)
        return output

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Negative ELBO of a batch at this epoch's beta, a sum; its terms are for the callbacks."""
        return self._step(batch, "train")[0]

    def validation_step(  # type: ignore[override]  # a NamedTuple passes through the loop
        self, batch: dict[str, Any], batch_idx: int
    ) -> VAEOutput:
        """Log the sums of a batch; the output is for the callbacks."""
        return self._step(batch, "val")[1]

    def _step(self, batch: dict[str, Any], stage: str) -> tuple[dict[str, Tensor], VAEOutput]:
        x: Tensor = batch["image"]
        if stage == "train" and self.augment is not None:
            x = self.augment(x)
        if self.channels_last:
            x = x.to(memory_format=CHANNELS_LAST[x.dim()])
        beta = self.annealing(self.current_epoch)
        output: VAEOutput = self(x)
        sums = compute_elbo(x, output.x_hat, output.mu, output.logvar, beta)
        self._log_sums(sums, stage, samples=x.shape[0], voxels=x.numel())
        self.log(f"{stage}/beta", beta, on_step=False, on_epoch=True, batch_size=1, logger=False)
        return sums, output

    def _log_sums(self, sums: dict[str, Tensor], stage: str, samples: int, voxels: int) -> None:
        exact = {f"{stage}/{name}": value.detach() for name, value in sums.items()}
        if stage == "val":
            target = self.annealing.target
            exact["val/neg_elbo"] = (sums["recon"] + target * sums["kl"]).detach()
        # Lightning's default averages over batches; a sum has to be asked for, also over devices.
        self.log_dict(
            exact, on_step=False, on_epoch=True, reduce_fx="sum", sync_dist=True,
            batch_size=samples, logger=False,
        )  # fmt: skip
        # Means weigh a batch by its size, so that a short last batch does not count for more.
        per_voxel = sums["recon"].detach() / voxels
        per_sample = sums["kl"].detach() / samples
        self.log_dict(
            {f"{stage}/recon_per_voxel": per_voxel, f"{stage}/kl_per_sample": per_sample},
            on_step=False, on_epoch=True, sync_dist=True, batch_size=samples, logger=False,
        )  # fmt: skip

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW (Loshchilov & Hutter 2019) with PyTorch's weight decay, and a cosine on top."""
        # One fused kernel: on two cores the plain loop took a quarter of a 3D step.
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.lr, fused=True)
        if self.lr_final == 1:
            return optimizer
        epochs, final = self.trainer.max_epochs, self.lr_final
        assert epochs is not None
        # Loshchilov & Hutter 2017, equation 5, without restarts; one step per epoch. A function of
        # the epoch and not CosineAnnealingLR, which a run that goes on for longer would give the
        # old number of epochs back: lr would rise again.
        cosine = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda epoch: final + (1 - final) * (1 + math.cos(math.pi * epoch / epochs)) / 2,
        )
        return [optimizer], [cosine]

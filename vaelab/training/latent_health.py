"""How the latent space fares while a run is trained, and whether it is used at all."""

from __future__ import annotations

import logging
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from vaelab.metrics.decomposition import kl_decomposition
from vaelab.metrics.latent import active_units
from vaelab.metrics.prior_match import mean_norm
from vaelab.training.gather import counts, gathered

log = logging.getLogger(__name__)

WARM_UP_EPOCHS = 2
"""Epochs in which idle latent units are no sign of collapse."""

FEW_UNITS = 0.1
"""Share of the latent units below which, while they grow fewer, a collapse is under way."""

SAMPLES_OF_INFORMATION = 64
"""Validation samples whose mutual information is estimated; the time grows with their square."""


class LatentHealth(Callback):
    """Logs how the latent space fares, and warns, once, when the posterior collapses.

    Beside ``val/active_units``: ``val/mutual_information`` in nats, of the first
    ``SAMPLES_OF_INFORMATION`` samples and so at most the log of their number; and
    ``val/aggregate_mean_norm``, how far the mean of q(z) is from the prior's, in its standard
    deviations: KL that is paid for an offset.

    Units fall idle where the KL is paid for and they are worth less than it. Some always do. The
    warning comes when nearly all have and there are fewer than there were: before the last one,
    while a run can still be stopped and set up otherwise.
    """

    def __init__(self) -> None:
        self._posteriors: list[Tensor] = []
        self._most = 0
        self._warned = False

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know."""
        return {"most": self._most, "warned": self._warned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up again."""
        self._most, self._warned = state_dict["most"], state_dict["warned"]

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget the epoch before."""
        self._posteriors = []

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the posteriors, a kilobyte a sample."""
        if not counts(batch):
            return
        posterior = torch.stack([outputs.output.mu, outputs.output.logvar])  # (2, B, z)
        self._posteriors.append(posterior.detach().float().cpu())

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count the units that carry information about the sample."""
        mu, logvar = torch.cat(gathered(trainer, self._posteriors), 1)
        if len(mu) < 2:  # a variance over samples needs two
            return
        active, units = active_units(mu), mu.shape[1]
        some = slice(SAMPLES_OF_INFORMATION)
        parts = kl_decomposition(mu[some], logvar[some], torch.Generator().manual_seed(0))
        found = {
            "active_units": float(active),
            "mutual_information": parts.mutual_information,
            "aggregate_mean_norm": mean_norm(mu),
        }
        entries = {f"val/{key}": value for key, value in found.items()}
        pl_module.log_dict(entries, logger=False, sync_dist=True)  # alike in all processes
        few = active == 0 or (active < self._most and active <= FEW_UNITS * units)
        self._most = max(active, self._most)
        # An untrained encoder tells nothing yet, nor does one that has not met its KL.
        settled = trainer.current_epoch >= WARM_UP_EPOCHS and _beta(trainer) > 0
        if few and settled and not self._warned:
            log.warning(
                "epoch %d: %d of %d latent units vary over the validation samples, %d did: the "
                "posterior collapses; a lower train.kl_beta or a longer "
                "train.kl_annealing_epochs may help",
                *(trainer.current_epoch, active, units, self._most),
            )
            self._warned = True


def _beta(trainer: L.Trainer) -> float:
    return float(trainer.callback_metrics.get("val/beta", 0.0))

"""Callbacks of every training: snapshots, best weights, the seed of a batch, a line per epoch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from vaelab.training.checkpoint import (
    OBJECTIVE,
    load_checkpoint,
    objective_path,
    save_weights,
    weights_in,
)
from vaelab.training.gather import counts

log = logging.getLogger(__name__)

Draw = Callable[[str | Path, np.ndarray, np.ndarray, str], None]
"""Writes a picture: (path, image (C, ...), reconstruction (C, ...), title)."""


class ReconstructionSnapshots(Callback):
    """Pictures of the first validation samples in ``<folder>/epoch_<E>/``.

    Args:
        folder: usually ``<run>/recon``.
        every_n_epochs: 0 switches the pictures off.
        num_samples: how many samples, counted from the first of the validation split.
        draw: writes a picture.
    """

    def __init__(
        self, folder: str | Path, every_n_epochs: int, num_samples: int, draw: Draw
    ) -> None:
        self.folder = Path(folder)
        self.every_n_epochs = every_n_epochs
        self.num_samples = num_samples
        self.draw = draw
        self._seen = 0

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start counting samples at 0."""
        self._seen = 0

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the samples of this batch that are among the first ``num_samples``."""
        due = self.every_n_epochs and trainer.current_epoch % self.every_n_epochs == 0
        if trainer.world_size > 1:  # each process draws those of the first samples that it has
            loader: Any = trainer.val_dataloaders
            self._seen = loader.batch_sampler.first_row(batch_idx)
        if not due or self._seen >= self.num_samples or not counts(batch):
            return
        folder = self.folder / f"epoch_{trainer.current_epoch}"
        samples = zip(batch["id"], batch["image"], outputs.output.x_hat, strict=True)
        for identifier, image, x_hat in list(samples)[: self.num_samples - self._seen]:
            path = folder / f"{self._seen:02d}_{Path(identifier).stem}.png"
            title = f"{identifier}, epoch {trainer.current_epoch}"
            self.draw(path, image.float().cpu().numpy(), x_hat.float().cpu().numpy(), title)
            self._seen += 1


class BestWeights(Callback):
    """Writes the network of the best checkpoint as a plain state dict beside it.

    The weights of the objective, if it has any, are written to ``objective_path``.

    Args:
        path: of the file, e.g. ``<run>/checkpoints/vae_best.pth``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._saved_from = ""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save after the previous epoch, whose checkpoint is on disk by now."""
        self.save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save after the last epoch."""
        self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        """Write the weights if there is a better checkpoint than before.

        Called by ``fit`` too, since no hook runs in a resumed run without remaining epochs.
        """
        checkpoint = trainer.checkpoint_callback
        assert isinstance(checkpoint, ModelCheckpoint)
        best = checkpoint.best_model_path
        if not trainer.is_global_zero or not best or best == self._saved_from:
            return
        # Missing where a run was killed between a better checkpoint and last.ckpt: the next epoch
        # writes it again.
        if Path(best).is_file():
            content = load_checkpoint(best)
            save_weights(weights_in(content), self.path)
            objective_weights = weights_in(content, OBJECTIVE)
            if objective_weights:
                save_weights(objective_weights, objective_path(self.path))
            self._saved_from = best


class SeedEachBatch(Callback):
    """Seeds the sampling of z with the run's seed, the epoch and the batch.

    The noise is then the same after an interruption and whatever loaders draw. Processes that train
    together have the same seed: see ``SharedNoise``.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed every device."""
        # The 0 was once the rank; it stays so that runs can still be reproduced.
        place = [self.seed, trainer.current_epoch, batch_idx, 0]
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))


class EpochSummary(Callback):
    """Writes a line per epoch to the log, which has no progress bar."""

    def __init__(self, metrics: Sequence[str]) -> None:
        self.metrics = list(metrics)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the epoch's metrics."""
        values = trainer.callback_metrics
        parts = [f"{name} {float(values[name]):.6g}" for name in self.metrics if name in values]
        assert trainer.max_epochs is not None
        last = trainer.max_epochs - 1
        log.info("epoch %d/%d: %s", trainer.current_epoch, last, "  ".join(parts))

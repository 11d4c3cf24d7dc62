"""What happens around the training step: pictures, best weights, the seed of a batch."""

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
"""Write a picture to a path: (path, image (C, ...), reconstruction (C, ...), title)."""


class ReconstructionSnapshots(Callback):
    """Pictures of the first validation samples in ``<folder>/epoch_<E>/``.

    Args:
        folder: usually ``<run>/recon``.
        every_n_epochs: 0 switches the pictures off.
        num_samples: how many samples, counted from the first of the validation split.
        draw: writes one picture; handed in, since training knows nothing of figures.
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
        """Count samples anew."""
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
        """Draw what is still wanted of this batch."""
        due = self.every_n_epochs and trainer.current_epoch % self.every_n_epochs == 0
        if trainer.world_size > 1:  # each process draws its own of the first samples
            loader: Any = trainer.val_dataloaders
            self._seen = loader.batch_sampler.first_row(batch_idx)
        if not due or self._seen >= self.num_samples or not counts(batch):
            return
        folder = self.folder / f"epoch_{trainer.current_epoch}"
        wanted = self.num_samples - self._seen
        triples = zip(batch["id"], batch["image"], outputs.output.x_hat, strict=True)
        for identifier, image, x_hat in list(triples)[:wanted]:
            name = f"{self._seen:02d}_{Path(identifier).stem}.png"
            title = f"{identifier}, epoch {trainer.current_epoch}"
            self.draw(
                folder / name, image.float().cpu().numpy(), x_hat.float().cpu().numpy(), title
            )
            self._seen += 1


class BestWeights(Callback):
    """Keeps the network of the best checkpoint as a plain state dict beside it.

    The weights of the objective, where it has any, are kept likewise; see ``objective_path``.

    Args:
        path: of the file, e.g. ``<run>/checkpoints/vae_best.pth``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._saved_from = ""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The checkpoint of the epoch before is on disk by now."""
        self.save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The last epoch may have been the best."""
        self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        """Write the weights if a better checkpoint has come.

        For a resumed run that has no epoch left, too: its training neither starts nor ends.
        """
        checkpoint = trainer.checkpoint_callback
        assert isinstance(checkpoint, ModelCheckpoint)
        best = checkpoint.best_model_path
        if not trainer.is_global_zero or not best or best == self._saved_from:
            return
        # Gone where a run was killed between a better checkpoint and last.ckpt: the epoch that
        # comes next was that better one.
        if Path(best).is_file():
            content = load_checkpoint(best)
            save_weights(weights_in(content), self.path)
            of_objective = weights_in(content, OBJECTIVE)
            if of_objective:
                save_weights(of_objective, objective_path(self.path))
            self._saved_from = best


class SeedEachBatch(Callback):
    """Seeds the sampling of z from the run's seed, the epoch and the batch.

    The noise then depends neither on an interruption before nor on what loaders draw. Processes
    that train together are seeded alike: see ``SharedNoise``.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed every device."""
        # The 0 was the rank of a process alone: its noise stays what it was.
        place = [self.seed, trainer.current_epoch, batch_idx, 0]
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))


class EpochSummary(Callback):
    """One line per epoch in the log: ``train.log`` tells the story without a progress bar."""

    def __init__(self, metrics: Sequence[str]) -> None:
        self.metrics = list(metrics)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the epoch's metrics."""
        values = trainer.callback_metrics
        parts = [f"{name} {float(values[name]):.6g}" for name in self.metrics if name in values]
        log.info("epoch %d/%s: %s", trainer.current_epoch, _last(trainer), "  ".join(parts))


def _last(trainer: L.Trainer) -> str:
    return "?" if trainer.max_epochs is None else str(trainer.max_epochs - 1)

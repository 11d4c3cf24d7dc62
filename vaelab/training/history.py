"""Write the history of a run: a whole row per epoch, before the epoch's checkpoint.

The log thus has every epoch of a checkpoint. Rows after the checkpoint are dropped when the run is
resumed, and written again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from vaelab.runs.history import Rows, read_rows, write_rows


class LogEpoch(Callback):
    """Passes all metrics of an epoch to every logger at once, before the epoch's checkpoint.

    Lightning itself would log validation, save the checkpoint, and then log training: a run killed
    in between would lack a row for ever.
    """

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log; ``step`` is that of the epoch's last batch, as Lightning counts."""
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        metrics["epoch"] = trainer.current_epoch
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step - 1)
            logger.save()


class CSVHistory(Logger):
    """``<folder>/metrics.csv``, one row per epoch, kept when a run is resumed.

    The file is replaced as a whole, so that no line is ever half written. Of several values in an
    epoch the last is kept.

    Args:
        folder: usually ``<run>/logs``.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self._rows: Rows | None = None
        self._without_epoch: dict[str, str] = {}

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.parent.name

    @property
    def version(self) -> str:
        """Empty: a run folder has one version."""
        return ""

    @property
    def save_dir(self) -> str:
        """The folder."""
        return os.fspath(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: ``config_resolved.yaml`` has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Put values into the row of ``metrics["epoch"]``, which ``save`` writes.

        Values that name no epoch, as those of Lightning's own callbacks, wait for the next row.
        """
        values = {name: str(value) for name, value in metrics.items()}
        if "epoch" not in metrics:
            self._without_epoch |= values
            return
        if self._rows is None:
            self._rows = read_rows(self.path)
        row, self._without_epoch = self._without_epoch | values, {}
        if step is not None:
            row["step"] = str(step)
        self._rows.setdefault(int(metrics["epoch"]), {}).update(row)

    @rank_zero_only
    def save(self) -> None:
        """Write all rows.

        Raises:
            NoSpaceError: when the disk is full; the file is then as it was.
        """
        if self._rows is not None:
            write_rows(self.path, self._rows)

    def finalize(self, status: str) -> None:
        """Nothing: ``save`` has written all rows."""

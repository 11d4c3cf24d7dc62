"""Prepare the folder of an interrupted run for being resumed."""

from __future__ import annotations

import logging
from pathlib import Path

from vaelab.atomic import remove_partials
from vaelab.errors import UserError
from vaelab.runs.folder import RunFolder
from vaelab.runs.history import read_history, truncate_history
from vaelab.training.checkpoint import checkpoint_to_resume, load_checkpoint
from vaelab.training.settings import TrainSettings

log = logging.getLogger(__name__)


def last_good(folder: RunFolder) -> list[str]:
    """A sentence that names the last good checkpoint; none before the end of the first epoch."""
    last = folder.last_checkpoint
    if not last.is_file():
        return []
    return [f"the last good checkpoint is {last}, epoch {load_checkpoint(last)['epoch']}"]


def prepare_to_resume(folder: RunFolder, settings: TrainSettings) -> tuple[Path | None, int]:
    """Path of the last checkpoint and the epoch that comes next.

    None and 0 for a run that was interrupted in its first epoch. Rows of the log after the
    checkpoint are dropped.
    """
    for place in (folder.checkpoints, folder.logs, folder.snapshots, folder.splits):
        remove_partials(place)
    history = folder.history
    checkpoint = checkpoint_to_resume(folder.checkpoints)
    if checkpoint is None:
        # The first row is written just before the first checkpoint, everything else after it.
        logged = read_history(history)["epoch"] if history.is_file() else []
        if len(logged) > 1 or folder.weights(settings.weights_name).is_file():
            raise UserError(
                f"resume={folder}: nothing to resume, the checkpoints are gone from "
                f"{folder.checkpoints}; start a new run instead"
            )
        log.warning("no epoch was completed before: training starts at the first")
        truncate_history(history, 0)
        return None, 0
    path, epoch = checkpoint
    epochs, limit = epoch + 1, settings.max_epochs
    if epochs > limit:
        raise UserError(
            f"train.max_epochs={limit}: this run has done {epochs} epochs already; give at least "
            f"{epochs}"
        )
    if epochs == limit:
        log.warning(
            "training is complete, all %d epochs are done; train.max_epochs=%d goes on for longer",
            *(limit, 2 * limit),
        )
    truncate_history(history, epochs)
    return path, epochs

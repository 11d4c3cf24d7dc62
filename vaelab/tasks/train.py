"""``task=train``: fit the model, then look at what it learned."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback, Timer, TQDMProgressBar
from lightning.pytorch.utilities.exceptions import SIGTERMException

from vaelab.assembly import Run
from vaelab.atomic import NoSpaceError, remove_partials
from vaelab.errors import Interrupted, UserError
from vaelab.report.canvas import save_figure
from vaelab.report.slices import reconstruction_slices
from vaelab.runs.history import read_history, truncate_history
from vaelab.training.callbacks import (
    BestWeights,
    EpochSummary,
    ReconstructionSnapshots,
    SeedEachBatch,
)
from vaelab.training.checkpoint import (
    AtomicCheckpointIO,
    checkpoint_callbacks,
    checkpoint_to_resume,
    load_checkpoint,
)
from vaelab.training.health import LatentHealth, StepHealth
from vaelab.training.history import LogEpoch
from vaelab.training.module import VAELitModule
from vaelab.training.preemption import Preemption

log = logging.getLogger(__name__)


class Train:
    """Fits the model and runs further tasks on the result.

    Args:
        then: name → task to run afterwards, in order.
    """

    def __init__(self, then: Mapping[str, Callable[[Run], object]] | None = None) -> None:
        self.then = dict(then or {})

    def __call__(self, run: Run) -> float:
        """Train; return the best value of ``train.monitor``, smaller being better.

        Raises:
            UserError: for data or settings that cannot work, before the first step; when there
                is nothing to resume; when numbers are not finite or the disk is full, naming the
                last good checkpoint.
            Interrupted: after SIGTERM; the run can be resumed.
        """
        with Preemption() as preemption:
            result = _fit(run, preemption)
            for task in self.then.values():
                task(run)
        return result


def _fit(run: Run, preemption: Preemption) -> float:
    settings = run.train
    checkpoint, epoch = _checkpoint_to_resume(run) if run.resume else (None, 0)
    if run.annealing.ramp_epochs >= settings.max_epochs:
        log.warning(
            "beta reaches its target %g only at epoch %d, but the last of "
            "train.max_epochs=%d is %d: raise train.max_epochs or lower "
            "train.kl_annealing_epochs",
            *(run.annealing.target, run.annealing.ramp_epochs),
            *(settings.max_epochs, settings.max_epochs - 1),
        )
    run.data.setup("fit")
    module = VAELitModule(
        run.model,
        run.annealing,
        settings.lr,
        run.hardware.is_channels_last,
        run.data.augment,
        settings.lr_final,
    )
    best, last = checkpoint_callbacks(run.folder.checkpoints, settings.monitor)
    weights = BestWeights(run.weights)
    trainer = _trainer(run, [*_callbacks(run), preemption, weights, best, last])
    parameters = sum(weight.numel() for weight in run.model.parameters())
    log.info("training %d epochs, %.1f M parameters", settings.max_epochs, parameters / 1e6)
    try:
        with warnings.catch_warnings():
            # A resumed run's own checkpoints; no other run's can be there.
            warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
            # weights_only: a checkpoint is data; one that carries code is refused.
            run.data.first_epoch = epoch
            trainer.fit(module, run.data, ckpt_path=checkpoint, weights_only=True)
        weights.save(trainer)
    except (UserError, NoSpaceError) as error:
        raise UserError("; ".join([str(error), *_last_good(run)])) from error
    except (SIGTERMException, RuntimeError) as stop:
        # A batch system signals the loaders' workers too: their death is the same message.
        if not preemption.received:
            raise
        where = f"stopped by SIGTERM in epoch {trainer.current_epoch}"
        log.warning("%s", "; ".join([where, *_last_good(run)]))
        raise Interrupted(where) from stop
    assert best.best_model_score is not None
    result = float(best.best_model_score)
    log.info("best %s %.6g, weights in %s", settings.monitor, result, run.weights)
    return result


def _trainer(run: Run, callbacks: list[Callback]) -> L.Trainer:
    hardware = run.hardware.trainer_kwargs()
    return L.Trainer(
        **hardware | {"plugins": [*hardware.get("plugins", []), AtomicCheckpointIO()]},
        max_epochs=run.train.max_epochs,
        deterministic=run.train.deterministic,
        logger=list(run.loggers),
        callbacks=callbacks,
        default_root_dir=run.folder.path,
        num_sanity_val_steps=0,  # its metrics would count as a first epoch
        log_every_n_steps=1,
        enable_progress_bar=run.logging.progress_bar,
        enable_model_summary=False,
    )


def _callbacks(run: Run) -> list[Callback]:
    settings = run.logging
    callbacks: list[Callback] = [
        *run.hardware.callbacks(),
        SeedEachBatch(run.train.seed),
        StepHealth(run.train.max_skipped_steps),
        LatentHealth(),
        ReconstructionSnapshots(
            run.folder.snapshots,
            settings.recon_every_n_epochs,
            settings.num_recon_samples,
            _Drawing(run.data.channel_names),
        ),
        LogEpoch(),
        EpochSummary(["train/loss", "val/recon", "val/kl", "train/beta", "val/active_units"]),
    ]
    if run.train.max_minutes is not None:
        limit = timedelta(minutes=run.train.max_minutes)
        callbacks.append(Timer(limit, interval="epoch"))
    if settings.progress_bar:
        callbacks.append(TQDMProgressBar(leave=False))
    return callbacks


class _Drawing:
    """Writes slices of a sample and its reconstruction: what a snapshot is made of."""

    def __init__(self, channel_names: object) -> None:
        self.channel_names = list(channel_names)  # type: ignore[call-overload]

    def __call__(
        self, path: str | Path, image: np.ndarray, reconstruction: np.ndarray, title: str
    ) -> None:
        save_figure(reconstruction_slices(image, reconstruction, self.channel_names, title), path)


def _last_good(run: Run) -> list[str]:
    """Where a run that has stopped can go on from, in words; empty before the first epoch's end."""
    last = run.folder.last_checkpoint
    if not last.is_file():
        return []
    return [f"the last good checkpoint is {last}, epoch {load_checkpoint(last)['epoch']}"]


def _checkpoint_to_resume(run: Run) -> tuple[Path | None, int]:
    """Path of the last checkpoint and the epoch that comes next.

    None and 0 for a run that was cut off in its first epoch.

    Rows of the log that the checkpoint does not know of are dropped.
    """
    here = run.folder
    for place in (here.checkpoints, here.logs, here.snapshots, here.splits):
        remove_partials(place)
    history = run.folder.history
    folder = run.folder.checkpoints
    found = checkpoint_to_resume(folder)
    if found is None:
        # The first row is there a moment before the first checkpoint, and these follow it.
        logged = read_history(history)["epoch"] if history.is_file() else []
        if len(logged) > 1 or run.weights.is_file():
            raise UserError(
                f"resume={run.folder}: nothing to resume, the checkpoints are gone from "
                f"{folder}; start a new run instead"
            )
        log.warning("no epoch was completed before: training starts at the first")
        truncate_history(history, 0)
        return None, 0
    path, epoch = found
    epochs, limit = epoch + 1, run.train.max_epochs
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

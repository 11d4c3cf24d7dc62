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

from vaelab.assembly import Experiment
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
    LAST,
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

    def __init__(self, then: Mapping[str, Callable[[Experiment], object]] | None = None) -> None:
        self.then = dict(then or {})

    def __call__(self, experiment: Experiment) -> float:
        """Train; return the best value of ``train.monitor``, smaller being better.

        Raises:
            UserError: for data or settings that cannot work, before the first step; when there
                is nothing to resume; when numbers are not finite or the disk is full, naming the
                last good checkpoint.
            Interrupted: after SIGTERM; the run can be resumed.
        """
        with Preemption() as preemption:
            result = _fit(experiment, preemption)
            for task in self.then.values():
                task(experiment)
        return result


def _fit(experiment: Experiment, preemption: Preemption) -> float:
    settings = experiment.train
    checkpoint, epoch = _checkpoint_to_resume(experiment) if experiment.resume else (None, 0)
    if experiment.annealing.ramp_epochs >= settings.max_epochs:
        log.warning(
            "beta reaches its target %g only at epoch %d, but the last of "
            "train.max_epochs=%d is %d: raise train.max_epochs or lower "
            "train.kl_annealing_epochs",
            *(experiment.annealing.target, experiment.annealing.ramp_epochs),
            *(settings.max_epochs, settings.max_epochs - 1),
        )
    experiment.data.setup("fit")
    module = VAELitModule(
        experiment.model,
        experiment.annealing,
        settings.lr,
        experiment.hardware.is_channels_last,
        experiment.data.augment,
        settings.lr_final,
    )
    best, last = checkpoint_callbacks(experiment.run_dir / "checkpoints", settings.monitor)
    weights = BestWeights(experiment.weights)
    trainer = _trainer(experiment, [*_callbacks(experiment), preemption, weights, best, last])
    parameters = sum(weight.numel() for weight in experiment.model.parameters())
    log.info("training %d epochs, %.1f M parameters", settings.max_epochs, parameters / 1e6)
    try:
        with warnings.catch_warnings():
            # A resumed run's own checkpoints; no other run's can be there.
            warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
            # weights_only: a checkpoint is data; one that carries code is refused.
            experiment.data.first_epoch = epoch
            trainer.fit(module, experiment.data, ckpt_path=checkpoint, weights_only=True)
        weights.save(trainer)
    except (UserError, NoSpaceError) as error:
        raise UserError("; ".join([str(error), *_last_good(experiment)])) from error
    except (SIGTERMException, RuntimeError) as stop:
        # A batch system signals the loaders' workers too: their death is the same message.
        if not preemption.received:
            raise
        where = f"stopped by SIGTERM in epoch {trainer.current_epoch}"
        log.warning("%s", "; ".join([where, *_last_good(experiment)]))
        raise Interrupted(where) from stop
    assert best.best_model_score is not None
    result = float(best.best_model_score)
    log.info("best %s %.6g, weights in %s", settings.monitor, result, experiment.weights)
    return result


def _trainer(experiment: Experiment, callbacks: list[Callback]) -> L.Trainer:
    hardware = experiment.hardware.trainer_kwargs()
    return L.Trainer(
        **hardware | {"plugins": [*hardware.get("plugins", []), AtomicCheckpointIO()]},
        max_epochs=experiment.train.max_epochs,
        deterministic=experiment.train.deterministic,
        logger=list(experiment.loggers),
        callbacks=callbacks,
        default_root_dir=experiment.run_dir,
        num_sanity_val_steps=0,  # its metrics would count as a first epoch
        log_every_n_steps=1,
        enable_progress_bar=experiment.logging.progress_bar,
        enable_model_summary=False,
    )


def _callbacks(experiment: Experiment) -> list[Callback]:
    settings = experiment.logging
    callbacks: list[Callback] = [
        *experiment.hardware.callbacks(),
        SeedEachBatch(experiment.train.seed),
        StepHealth(experiment.train.max_skipped_steps),
        LatentHealth(),
        ReconstructionSnapshots(
            experiment.run_dir / "recon",
            settings.recon_every_n_epochs,
            settings.num_recon_samples,
            _Drawing(experiment.data.channel_names),
        ),
        LogEpoch(),
        EpochSummary(["train/loss", "val/recon", "val/kl", "train/beta", "val/active_units"]),
    ]
    if experiment.train.max_minutes is not None:
        limit = timedelta(minutes=experiment.train.max_minutes)
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


def _last_good(experiment: Experiment) -> list[str]:
    """Where a run that has stopped can go on from, in words; empty before the first epoch's end."""
    last = experiment.run_dir / "checkpoints" / LAST
    if not last.is_file():
        return []
    return [f"the last good checkpoint is {last}, epoch {load_checkpoint(last)['epoch']}"]


def _checkpoint_to_resume(experiment: Experiment) -> tuple[Path | None, int]:
    """Path of the last checkpoint and the epoch that comes next.

    None and 0 for a run that was cut off in its first epoch.

    Rows of the log that the checkpoint does not know of are dropped.
    """
    for name in ("checkpoints", "logs", "recon", "splits"):
        remove_partials(experiment.run_dir / name)
    history = experiment.run_dir / "logs" / "metrics.csv"
    folder = experiment.run_dir / "checkpoints"
    found = checkpoint_to_resume(folder)
    if found is None:
        # The first row is there a moment before the first checkpoint, and these follow it.
        logged = read_history(history)["epoch"] if history.is_file() else []
        if len(logged) > 1 or experiment.weights.is_file():
            raise UserError(
                f"resume={experiment.run_dir}: nothing to resume, the checkpoints are gone from "
                f"{folder}; start a new run instead"
            )
        log.warning("no epoch was completed before: training starts at the first")
        truncate_history(history, 0)
        return None, 0
    path, epoch = found
    epochs, limit = epoch + 1, experiment.train.max_epochs
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

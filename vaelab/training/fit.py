"""Training from parts that are built: by ``task=train``, and by hand in a notebook."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback, Timer, TQDMProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import distributed

from vaelab.atomic import NoSpaceError
from vaelab.data.batches import Share
from vaelab.data.module import SplitDataModule
from vaelab.errors import Interrupted, UserError
from vaelab.models.vae import VAE
from vaelab.objective.annealing import Annealing
from vaelab.objective.contract import Objective
from vaelab.progress import is_shown, titled
from vaelab.report.canvas import save_figure
from vaelab.report.slices import reconstruction_slices
from vaelab.runs.folder import RunFolder
from vaelab.training.callbacks import (
    BestWeights,
    EpochSummary,
    ReconstructionSnapshots,
    SeedEachBatch,
)
from vaelab.training.checkpoint import AtomicCheckpointIO, checkpoint_callbacks
from vaelab.training.hardware import Hardware
from vaelab.training.health import StepHealth
from vaelab.training.history import LogEpoch
from vaelab.training.latent_health import LatentHealth
from vaelab.training.module import VAELitModule
from vaelab.training.monitor import MonitorCheck
from vaelab.training.optimizer import OptimizerFactory
from vaelab.training.preemption import Preemption
from vaelab.training.resume import last_good, prepare_to_resume
from vaelab.training.settings import LoggingSettings, TrainSettings

log = logging.getLogger(__name__)

SHOWN = (
    "train/loss", "val/recon", "val/kl", "train/beta", "val/active_units", "val/recon_at_mu",
    "val/recon_at_zero", "val/recon_at_draw",
)  # fmt: skip
"""Metrics in the log's line of each epoch."""


class EpochBar(TQDMProgressBar):
    """Lightning's bar, with the job's name where jobs run side by side."""

    def on_train_epoch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Name job and epoch."""
        super().on_train_epoch_start(trainer)
        bar = self.train_progress_bar
        bar.set_description_str(titled(bar.desc))


def fit(
    folder: RunFolder,
    data: SplitDataModule,
    model: VAE,
    objective: Objective,
    annealing: Annealing,
    optimizer: OptimizerFactory,
    hardware: Hardware,
    settings: TrainSettings,
    logging_settings: LoggingSettings,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    trainer_kwargs: Mapping[str, Any] | None = None,
) -> float:
    """Train; returns the best, that is smallest, value of ``train.monitor``.

    Args:
        folder: where checkpoints, logs and snapshots go.
        data: loaders; set up here.
        model: trained in place, and left with its last weights.
        objective: what is minimised.
        annealing: beta as a function of the epoch.
        optimizer: constructs the optimiser and its schedule.
        hardware: where to compute, and how.
        settings: the section ``train`` of the config.
        logging_settings: the section ``logging`` of the config.
        loggers: receive the metrics of each epoch.
        callbacks: in addition to those of every training.
        resume: resume from the last checkpoint.
        trainer_kwargs: further arguments of ``lightning.Trainer``.

    Raises:
        UserError: for impossible data or settings, before the first step; when there is nothing
            to resume; when numbers are not finite or the disk is full, naming the last good
            checkpoint.
        Interrupted: after SIGTERM; the run can be resumed.
    """
    checkpoint, epoch = prepare_to_resume(folder, settings) if resume else (None, 0)
    _warn_of_a_long_ramp(annealing, settings)
    data.setup("fit")
    module = VAELitModule(
        model, objective, annealing, optimizer, len(data.splits["train"]), len(data.splits["val"]),
        hardware.is_channels_last, data.augment,
    )  # fmt: skip
    best, last = checkpoint_callbacks(folder.checkpoints, settings.monitor)
    weights = BestWeights(folder.weights(settings.weights_name))
    preemption = Preemption()
    trainer = _trainer(
        folder, hardware, settings, logging_settings, loggers,
        [
            *hardware.callbacks(), *_usual_callbacks(folder, data, settings, logging_settings),
            *callbacks, preemption, weights, best, last,
        ],
        trainer_kwargs or {},
    )  # fmt: skip
    parameters = sum(weight.numel() for weight in module.parameters())
    log.info("training %d epochs, %.1f M parameters", settings.max_epochs, parameters / 1e6)
    try:
        with preemption, warnings.catch_warnings():
            # A resumed run's own checkpoints; the folder has no others.
            warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
            data.first_epoch = epoch
            data.share = Share(trainer.global_rank, trainer.world_size)
            # weights_only: a checkpoint is data; one that carries code is refused.
            trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
        weights.save(trainer)
        trainer.strategy.barrier()  # from here on every process finds the weights
    except (UserError, NoSpaceError) as error:
        raise UserError("; ".join([str(error), *last_good(folder)])) from error
    except (SIGTERMException, RuntimeError) as stop:
        # A batch system signals the loaders' workers too, and their end is a RuntimeError.
        if not preemption.received:
            raise
        where = f"stopped by SIGTERM in epoch {trainer.current_epoch}"
        log.warning("%s", "; ".join([where, *last_good(folder)]))
        raise Interrupted(where) from stop
    finally:
        data.share = Share()
        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()  # later tasks run in one process
    assert best.best_model_score is not None
    result = float(best.best_model_score)
    log.info("best %s %.6g, weights in %s", settings.monitor, result, weights.path)
    return result


def _warn_of_a_long_ramp(annealing: Annealing, settings: TrainSettings) -> None:
    if annealing.ramp_epochs >= settings.max_epochs:
        log.warning(
            "beta reaches its target %g only at epoch %d, but the last of "
            "train.max_epochs=%d is %d: raise train.max_epochs or lower "
            "train.kl_annealing_epochs",
            *(annealing.target, annealing.ramp_epochs),
            *(settings.max_epochs, settings.max_epochs - 1),
        )


def _trainer(
    folder: RunFolder,
    hardware: Hardware,
    settings: TrainSettings,
    logging_settings: LoggingSettings,
    loggers: Sequence[Logger],
    callbacks: list[Callback],
    further: Mapping[str, Any],
) -> L.Trainer:
    asked = hardware.trainer_kwargs()
    return L.Trainer(
        **asked | {"plugins": [*asked.get("plugins", []), AtomicCheckpointIO()]},
        max_epochs=settings.max_epochs,
        deterministic=settings.deterministic,
        gradient_clip_val=settings.gradient_clip_val,
        accumulate_grad_batches=settings.accumulate_grad_batches,
        logger=list(loggers),
        callbacks=callbacks,
        default_root_dir=folder.path,
        num_sanity_val_steps=0,  # its metrics would count as a first epoch
        log_every_n_steps=1,
        enable_progress_bar=is_shown(logging_settings.progress_bar),
        enable_model_summary=False,
        **further,
    )


def _usual_callbacks(
    folder: RunFolder,
    data: SplitDataModule,
    settings: TrainSettings,
    logging_settings: LoggingSettings,
) -> list[Callback]:
    def draw(path: str | Path, image: np.ndarray, x_hat: np.ndarray, title: str) -> None:
        save_figure(reconstruction_slices(image, x_hat, list(data.channel_names), title), path)

    callbacks: list[Callback] = [
        MonitorCheck(settings.monitor),
        SeedEachBatch(settings.seed),
        StepHealth(settings.max_skipped_steps),
        LatentHealth(),
        ReconstructionSnapshots(
            folder.snapshots,
            logging_settings.recon_every_n_epochs,
            logging_settings.num_recon_samples,
            draw,
        ),
        LogEpoch(),
        EpochSummary(SHOWN),
    ]
    if settings.max_minutes is not None:
        limit = timedelta(minutes=settings.max_minutes)
        callbacks.append(Timer(limit, interval="epoch"))
    if is_shown(logging_settings.progress_bar):
        callbacks.append(EpochBar(leave=False))
    return callbacks

"""``task=train``: fit the model, then look at what it learned."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar

from vaelab.errors import UserError
from vaelab.report.figures import reconstruction_slices, save_figure
from vaelab.tasks.experiment import Experiment
from vaelab.training.callbacks import (
    BestWeights,
    EpochSummary,
    LatentHealth,
    ReconstructionSnapshots,
    SeedEachBatch,
)
from vaelab.training.checkpoint import load_checkpoint
from vaelab.training.history import truncate_history
from vaelab.training.module import VAELitModule

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
            UserError: for data or settings that cannot work, before the first step, and when
                there is nothing to resume.
        """
        settings = experiment.train
        checkpoint = _checkpoint_to_resume(experiment) if experiment.resume else None
        if experiment.annealing.ramp_epochs >= settings.max_epochs:
            log.warning(
                "beta reaches its target %g only at epoch %d, but the last of "
                "train.max_epochs=%d is %d: raise train.max_epochs or lower "
                "train.kl_annealing_epochs",
                *(experiment.annealing.target, experiment.annealing.ramp_epochs),
                *(settings.max_epochs, settings.max_epochs - 1),
            )
        experiment.data.setup("fit")
        hardware = experiment.hardware
        module = VAELitModule(
            experiment.model,
            experiment.annealing,
            settings.lr,
            hardware.channels_last,
            experiment.data.augment,
            settings.lr_final,
        )
        best = ModelCheckpoint(
            dirpath=experiment.run_dir / "checkpoints",
            filename="best_epoch_{epoch:04d}",
            auto_insert_metric_name=False,
            monitor=settings.monitor,
            mode="min",
            save_last=True,
            save_on_train_epoch_end=True,  # a resumed run goes on at an epoch's boundary
            enable_version_counter=False,
        )
        trainer = L.Trainer(
            **hardware.trainer_kwargs(),
            max_epochs=settings.max_epochs,
            deterministic=settings.deterministic,
            logger=list(experiment.loggers),
            callbacks=[*_callbacks(experiment), best],
            default_root_dir=experiment.run_dir,
            num_sanity_val_steps=0,  # its metrics would count as a first epoch
            log_every_n_steps=1,
            enable_progress_bar=experiment.logging.progress_bar,
            enable_model_summary=False,
        )
        parameters = sum(weight.numel() for weight in experiment.model.parameters())
        log.info("training %d epochs, %.1f M parameters", settings.max_epochs, parameters / 1e6)
        # weights_only: a checkpoint is data; one that carries code is refused.
        with warnings.catch_warnings():
            # A resumed run's own checkpoints; no other run's can be there.
            warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
            trainer.fit(module, experiment.data, ckpt_path=checkpoint, weights_only=True)
        if trainer.interrupted:
            raise UserError(
                f"stopped in epoch {trainer.current_epoch}; go on with resume={experiment.run_dir}"
            )
        assert best.best_model_score is not None
        result = float(best.best_model_score)
        log.info("best %s %.6g, weights in %s", settings.monitor, result, experiment.weights)
        for task in self.then.values():
            task(experiment)
        return result


def _callbacks(experiment: Experiment) -> list[Callback]:
    settings = experiment.logging
    callbacks: list[Callback] = [
        SeedEachBatch(experiment.train.seed),
        LatentHealth(),
        ReconstructionSnapshots(
            experiment.run_dir / "recon",
            settings.recon_every_n_epochs,
            settings.num_recon_samples,
            _Drawing(experiment.data.channel_names),
        ),
        BestWeights(experiment.weights),
        EpochSummary(["train/loss", "val/recon", "val/kl", "train/beta", "val/active_units"]),
    ]
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


def _checkpoint_to_resume(experiment: Experiment) -> str:
    """Path of the last checkpoint; rows of the log that it does not know of are dropped."""
    path = experiment.run_dir / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise UserError(
            f"resume={experiment.run_dir}: nothing to resume, {path} does not exist; "
            "start a new run instead"
        )
    epoch = load_checkpoint(path)["epoch"]
    assert isinstance(epoch, int)
    if epoch + 1 >= experiment.train.max_epochs:
        log.warning("all %d epochs are done already", experiment.train.max_epochs)
    truncate_history(experiment.run_dir / "logs" / "metrics.csv", epoch + 1)
    return str(path)

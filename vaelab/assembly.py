"""What a task is handed: all the parts of one run, already built."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightning.pytorch.loggers import Logger

from vaelab.anomaly.scores import Score
from vaelab.data.module import SplitDataModule
from vaelab.errors import UserError
from vaelab.models.vae import VAE
from vaelab.objective.annealing import Annealing
from vaelab.runs.folder import RunFolder
from vaelab.training.hardware import Hardware
from vaelab.training.module import MONITORS


@dataclass(frozen=True)
class TrainSettings:
    """The ``train`` section of the config; see ``conf/config.yaml`` for what each means."""

    seed: int
    max_epochs: int
    lr: float
    lr_final: float
    kl_beta: float
    kl_annealing_epochs: int
    monitor: str
    weights_name: str
    deterministic: bool | Literal["warn"]
    max_skipped_steps: int = 40  # runs from before the key was there are still read
    max_minutes: float | None = None

    def __post_init__(self) -> None:
        if self.max_epochs < 1:
            raise UserError(f"train.max_epochs={self.max_epochs}: at least 1 is needed; try 20")
        if self.max_minutes is not None and not 0 < self.max_minutes < math.inf:
            raise UserError(
                f"train.max_minutes={self.max_minutes}: must be above 0; null is no limit"
            )
        if not 0 <= self.lr_final <= 1:
            raise UserError(f"train.lr_final={self.lr_final}: a share of train.lr, from 0 to 1")
        if self.monitor not in MONITORS:
            raise UserError(f"train.monitor={self.monitor}: must be one of {', '.join(MONITORS)}")
        if Path(self.weights_name).name != self.weights_name:
            raise UserError(f"train.weights_name={self.weights_name}: a file name, not a path")
        if self.max_skipped_steps < 1:
            raise UserError(
                f"train.max_skipped_steps={self.max_skipped_steps}: at least 1 is needed, since "
                "the scale of the gradients is found by skipping; try 40"
            )


@dataclass(frozen=True)
class LoggingSettings:
    """The ``logging`` section of the config."""

    recon_every_n_epochs: int
    num_recon_samples: int
    progress_bar: bool

    def __post_init__(self) -> None:
        for key in ("recon_every_n_epochs", "num_recon_samples"):
            if getattr(self, key) < 0:
                raise UserError(f"logging.{key}={getattr(self, key)}: cannot be negative; 0 is off")


@dataclass(frozen=True)
class Run:
    """A run folder and the parts that work in it."""

    folder: RunFolder
    data: SplitDataModule
    model: VAE
    annealing: Annealing
    hardware: Hardware
    score: Score
    loggers: Sequence[Logger]
    train: TrainSettings
    logging: LoggingSettings
    map_sigma: float = 0.0
    """Smoothing of anomaly maps, in pixels or voxels."""
    resume: bool = False
    """Go on from ``checkpoints/last.ckpt`` instead of starting anew."""

    @property
    def weights(self) -> Path:
        """The best network of this run as a plain state dict."""
        return self.folder.weights(self.train.weights_name)

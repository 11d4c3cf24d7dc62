"""The sections ``train`` and ``logging`` of the config; ``conf/config.yaml`` explains each key."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vaelab.errors import UserError

HIGHEST_SEED = 2**32 - 1  # of NumPy's legacy generator, which Lightning seeds too


def check_seed(seed: int) -> None:
    """Raise ``UserError`` for a number that is not a valid seed of all generators."""
    if not 0 <= seed <= HIGHEST_SEED:
        raise UserError(f"train.seed={seed}: from 0 to {HIGHEST_SEED}; try 42")


@dataclass(frozen=True)
class TrainSettings:
    """Length of the training, steps, and the metric by which the best epoch is chosen."""

    seed: int
    max_epochs: int
    lr: float
    lr_final: float
    kl_beta: float
    kl_annealing_epochs: int
    monitor: str
    weights_name: str
    deterministic: bool | Literal["warn"]
    max_skipped_steps: int = 40  # a default, for configs saved before the key existed
    max_minutes: float | None = None
    gradient_clip_val: float | None = None
    accumulate_grad_batches: int = 1

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.max_epochs < 1:
            raise UserError(f"train.max_epochs={self.max_epochs}: at least 1 is needed; try 20")
        if self.max_minutes is not None and not 0 < self.max_minutes < math.inf:
            raise UserError(
                f"train.max_minutes={self.max_minutes}: must be above 0; null is no limit"
            )
        if Path(self.weights_name).name != self.weights_name:
            raise UserError(f"train.weights_name={self.weights_name}: a file name, not a path")
        if self.max_skipped_steps < 1:
            raise UserError(
                f"train.max_skipped_steps={self.max_skipped_steps}: at least 1 is needed, since "
                "the scale of the gradients is found by skipping; try 40"
            )
        if self.gradient_clip_val is not None and not 0 < self.gradient_clip_val < math.inf:
            raise UserError(
                f"train.gradient_clip_val={self.gradient_clip_val}: must be above 0; null is off"
            )
        if self.accumulate_grad_batches < 1:
            raise UserError(
                f"train.accumulate_grad_batches={self.accumulate_grad_batches}: at least 1 is "
                "needed; 1 is off"
            )


@dataclass(frozen=True)
class LoggingSettings:
    """What is drawn and shown during training."""

    recon_every_n_epochs: int
    num_recon_samples: int
    progress_bar: bool

    def __post_init__(self) -> None:
        for key in ("recon_every_n_epochs", "num_recon_samples"):
            if getattr(self, key) < 0:
                raise UserError(f"logging.{key}={getattr(self, key)}: cannot be negative; 0 is off")

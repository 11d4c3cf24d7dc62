"""A module to train, for all tests of this folder."""

from __future__ import annotations

from typing import Any

from vaelab.models.vae import VAE
from vaelab.objective.annealing import Annealing
from vaelab.objective.contract import Objective
from vaelab.objective.elbo import ELBOLoss
from vaelab.training.module import VAELitModule
from vaelab.training.optimizer import AdamW


def lit_module(
    model: VAE,
    annealing: Annealing,
    lr: float,
    lr_final: float = 1.0,
    objective: Objective | None = None,
    **changes: Any,
) -> VAELitModule:
    """What a run trains, on the ELBO with AdamW unless told otherwise."""
    settings = {"train_samples": 5, "val_samples": 5} | changes
    return VAELitModule(model, objective or ELBOLoss(), annealing, AdamW(lr, lr_final), **settings)

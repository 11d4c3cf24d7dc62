"""A module to train, small data and quiet trainers, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader, Dataset

from vaelab.models.encoder_decoder import EncoderDecoderVAE
from vaelab.models.vae import VAE
from vaelab.objective.annealing import Annealing, Constant
from vaelab.objective.contract import Objective
from vaelab.objective.elbo import ELBOLoss
from vaelab.training.module import VAELitModule
from vaelab.training.optimizer import AdamW


class Flat(Dataset[dict[str, Any]]):
    """Five images of one value each, 0 to 4 except for ``changes``, a patient each."""

    def __init__(self, changes: Mapping[int, float] | None = None) -> None:
        self.values = [float(n) for n in range(5)]
        for index, value in (changes or {}).items():
            self.values[index] = value

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = torch.full((1, 4, 4), self.values[index])
        return {"image": image, "id": f"site_a/patient{index}"}


def flat_vae(z_dim: int = 2) -> VAE:
    """The mean of every latent unit is the image's mean value, so that all vary over ``Flat``."""
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(z_dim, 16), nn.Unflatten(1, (1, 4, 4)))
    vae = EncoderDecoderVAE(encoder=nn.Flatten(), decoder=decoder, features=16, z_dim=z_dim)
    nn.init.constant_(vae.mu_head.weight, 1 / 16)
    return vae


def quiet_trainer(*callbacks: Callback, **changes: Any) -> L.Trainer:
    """A trainer on the CPU without logs, checkpoints and output."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return L.Trainer(
        accelerator="cpu", num_sanity_val_steps=0, enable_model_summary=False, log_every_n_steps=1,
        callbacks=list(callbacks), **(quiet | changes),
    )  # fmt: skip


def lit_module(
    model: VAE,
    annealing: Annealing,
    lr: float,
    lr_final: float = 1.0,
    objective: Objective | None = None,
    **changes: Any,
) -> VAELitModule:
    """What a run trains: by default on the ELBO, with AdamW."""
    settings = {"train_samples": 5, "val_samples": 5} | changes
    return VAELitModule(model, objective or ELBOLoss(), annealing, AdamW(lr, lr_final), **settings)


def fit(
    *callbacks: Callback,
    epochs: int = 1,
    model: VAE | None = None,
    lr: float = 1e-6,
    train: Dataset[dict[str, Any]] | None = None,
    val: Dataset[dict[str, Any]] | None = None,
    annealing: Annealing | None = None,
    **changes: Any,
) -> L.Trainer:
    """Two samples a batch: 01, 23, 4."""
    trainer = quiet_trainer(*callbacks, max_epochs=epochs, **changes)
    module = lit_module(model or flat_vae(), annealing or Constant(1.0), lr)
    trainer.fit(
        module, DataLoader(train or Flat(), batch_size=2), DataLoader(val or Flat(), batch_size=2)
    )
    return trainer

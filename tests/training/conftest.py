"""A module to train, small data and a trainer, for all tests of this folder."""

from __future__ import annotations

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


class Flat(Dataset[dict[str, Any]]):
    """Sample n is an image of value n, or of what stands in its place."""

    def __init__(self, **instead: float) -> None:
        self.values = [instead.get(f"subject{n}", float(n)) for n in range(5)]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": torch.full((1, 4, 4), self.values[index]), "id": f"subject{index}"}


def tiny_vae() -> VAE:
    """Two latent units whose mean is the image's mean value: both vary over ``Flat``."""
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 16), nn.Unflatten(1, (1, 4, 4)))
    vae = EncoderDecoderVAE(encoder=nn.Flatten(), decoder=decoder, features=16, z_dim=2)
    nn.init.constant_(vae.mu_head.weight, 1 / 16)
    return vae


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
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        callbacks=list(callbacks), **changes,
    )  # fmt: skip
    module = lit_module(model or tiny_vae(), annealing or Constant(1.0), lr)
    trainer.fit(
        module, DataLoader(train or Flat(), batch_size=2), DataLoader(val or Flat(), batch_size=2)
    )
    return trainer

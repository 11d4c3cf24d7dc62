"""Callbacks of every training, in runs of a few epochs on five samples."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from vaelab.models.vae import VAE
from vaelab.objective.annealing import Constant
from vaelab.training.callbacks import (
    BestWeights,
    EpochSummary,
    ReconstructionSnapshots,
    SeedEachBatch,
)
from vaelab.training.checkpoint import load_checkpoint, load_weights, weights_in
from vaelab.training.module import VAELitModule

from .conftest import Flat, flat_vae, lit_module, quiet_trainer

Drawn = tuple[str, np.ndarray, np.ndarray, str]


def fit(
    *callbacks: Callback, epochs: int, model: VAE | None = None, lr: float = 1e-3, **changes: Any
) -> L.Trainer:
    trainer = quiet_trainer(*callbacks, max_epochs=epochs, **changes)
    loader = DataLoader(Flat(), batch_size=2)
    trainer.fit(lit_module(model or flat_vae(), Constant(1.0), lr), loader, loader)
    return trainer


# --- snapshots


class Draw:
    """Records what would be drawn."""

    def __init__(self) -> None:
        self.drawn: list[Drawn] = []

    def __call__(self, path: str | Path, image: np.ndarray, x_hat: np.ndarray, title: str) -> None:
        self.drawn.append((Path(path).as_posix(), image, x_hat, title))

    @property
    def paths(self) -> list[str]:
        """Where, in order."""
        return [path for path, *_ in self.drawn]


def test_more_samples_than_a_batch_holds_are_counted_over_batches() -> None:
    draw = Draw()  # 3 samples, 2 a batch
    fit(ReconstructionSnapshots("recon", 1, 3, draw), epochs=1)
    assert draw.paths == [f"recon/epoch_0/0{n}_patient{n}.png" for n in range(3)]


def test_pictures_come_every_second_epoch_starting_with_the_first() -> None:
    draw = Draw()
    fit(ReconstructionSnapshots("recon", 2, 1, draw), epochs=5)
    assert draw.paths == [f"recon/epoch_{epoch}/00_patient0.png" for epoch in (0, 2, 4)]


def test_no_more_pictures_than_samples() -> None:
    draw = Draw()
    fit(ReconstructionSnapshots("recon", 1, 100, draw), epochs=1)
    assert len(draw.paths) == len(Flat())


@pytest.mark.parametrize(("every", "samples"), [(0, 3), (1, 0)])
def test_a_zero_switches_the_pictures_off(every: int, samples: int) -> None:
    draw = Draw()
    fit(ReconstructionSnapshots("recon", every, samples, draw), epochs=2)
    assert draw.paths == []


def test_a_picture_shows_the_image_beside_what_the_network_makes_of_it() -> None:
    draw, vae = Draw(), flat_vae()
    fit(ReconstructionSnapshots("recon", 1, 2, draw), epochs=1, model=vae)
    _, image, x_hat, title = draw.drawn[1]
    assert np.array_equal(image, np.full((1, 4, 4), 1.0))  # sample 1 is flat at 1
    expected = vae.eval()(torch.full((1, 1, 4, 4), 1.0)).x_hat[0].detach().numpy()
    np.testing.assert_allclose(x_hat, expected, rtol=1e-5, atol=1e-6)
    assert title == "site_a/patient1, epoch 0"


# --- best weights


class EveryEpoch(Callback):
    """Keeps the network as it was at the end of each epoch."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Copy it."""
        assert isinstance(pl_module, VAELitModule)
        state = pl_module.model.state_dict()
        self.weights.append({name: weight.clone() for name, weight in state.items()})


@pytest.mark.parametrize(("mode", "best"), [("min", 3), ("max", 0)])
def test_the_best_epoch_is_kept_whether_it_is_the_last_or_the_first(
    tmp_path: Path, mode: str, best: int
) -> None:
    # The loss falls with every epoch, so the smallest is the last and the largest the first.
    path, epochs = tmp_path / "vae_best.pth", EveryEpoch()
    checkpoint = ModelCheckpoint(
        dirpath=tmp_path, filename="best_{epoch}", monitor="val/recon", mode=mode,  # type: ignore[arg-type]
        save_last=True, save_on_train_epoch_end=True,
    )  # fmt: skip
    fit(BestWeights(path), epochs, checkpoint, epochs=4, lr=1e-2, enable_checkpointing=True)
    assert checkpoint.best_model_path == str(tmp_path / f"best_epoch={best}.ckpt")
    kept = torch.load(path, weights_only=True)
    assert kept.keys() == epochs.weights[best].keys()
    for name, weight in epochs.weights[best].items():
        assert torch.equal(kept[name], weight), name
    in_checkpoint = weights_in(load_checkpoint(checkpoint.best_model_path))
    assert all(torch.equal(kept[name], weight) for name, weight in in_checkpoint.items())
    load_weights(flat_vae(), path)


# --- the seed of the noise


class Noise(Callback):
    """Keeps the first random number that each training batch would draw."""

    def __init__(self) -> None:
        self.drawn: list[float] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Draw without advancing the generator."""
        state = torch.get_rng_state()
        self.drawn.append(float(torch.rand(())))
        torch.set_rng_state(state)


def test_noise_follows_the_seed_the_epoch_and_the_batch_alone() -> None:
    def draws(seed: int, before: int) -> list[float]:
        torch.manual_seed(before)
        noise = Noise()
        fit(SeedEachBatch(seed), noise, epochs=2)
        return noise.drawn

    first = draws(seed=1, before=10)
    assert len(set(first)) == 2 * 3  # epochs · batches, all different
    assert draws(seed=1, before=20) == first
    assert not set(draws(seed=2, before=10)) & set(first)


# --- the line of an epoch


def test_each_epoch_writes_one_line_with_its_metrics(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="vaelab.training.callbacks")
    trainer = fit(EpochSummary(["val/recon", "train/beta", "not/logged"]), epochs=2, lr=1e-12)
    lines = [r.message for r in caplog.records if r.name == "vaelab.training.callbacks"]
    recon = f"{float(trainer.callback_metrics['val/recon']):.6g}"  # the same in both epochs
    assert lines == [f"epoch {epoch}/1: val/recon {recon}  train/beta 1" for epoch in (0, 1)]

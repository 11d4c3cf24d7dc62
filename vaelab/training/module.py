"""The training step: a model, an objective, a schedule of beta, an optimiser."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Literal, NamedTuple

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from vaelab.data.batches import FILLER
from vaelab.models.vae import VAE
from vaelab.objective.annealing import Annealing
from vaelab.objective.contract import Objective, Step, evaluate
from vaelab.training.gather import counts
from vaelab.training.layout import CHANNELS_LAST, to_channels_last, to_contiguous
from vaelab.training.noise import SharedNoise
from vaelab.training.optimizer import OptimizerFactory


class StepOutput(NamedTuple):
    """What a validation step passes to the callbacks."""

    output: Any
    """Of the model, a NamedTuple that begins with ``x_hat, mu, logvar``."""
    sums: dict[str, Tensor]
    """Of the objective, over the batch."""


class VAELitModule(L.LightningModule):
    """Trains a VAE on an objective, at the beta of the epoch.

    Logged for each stage, as exact sums over all samples of the epoch: every entry of the
    objective, and, for the epoch, ``beta``. Beside them ``recon_per_voxel`` and
    ``kl_per_sample``, which can be compared across data sets, and ``val/neg_elbo``: recon + beta ·
    kl at the *target* beta, which can be compared across epochs while beta still rises.
    ``LogEpoch`` passes them to the loggers, all of an epoch at once.

    Args:
        model: the network.
        objective: what is minimised; the weights of an ``nn.Module`` are trained too.
        annealing: beta as a function of the epoch.
        optimizer: constructs the optimiser; see ``vaelab.training.optimizer``.
        train_samples: training samples, over all processes; see ``Step``.
        val_samples: validation samples, over all processes.
        channels_last: keep images and weights channels-last in memory, for speed.
        augment: random change of a training batch, (B, C, ...) → the same shape, or None.
    """

    def __init__(
        self,
        model: VAE,
        objective: Objective,
        annealing: Annealing,
        optimizer: OptimizerFactory,
        train_samples: int,
        val_samples: int,
        channels_last: bool = False,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.annealing = annealing
        self.optimizer = optimizer
        self.samples = {"train": train_samples, "val": val_samples}
        self.channels_last = channels_last
        self.augment = augment
        if channels_last:
            to_channels_last(model)

    def forward(self, x: Tensor) -> Any:
        """Reconstruct a batch; see ``VAE.forward``."""
        return self.model(x)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """The loss of a batch at this epoch's beta, with its terms for the callbacks."""
        trainer = self.trainer
        with ExitStack() as stack:
            if trainer.world_size > 1:
                batches: Any = trainer.train_dataloader
                rows = batches.batch_sampler.rows(batch_idx)
                stack.enter_context(SharedNoise(rows))
            sums = self._step(batch, "train").sums
        factor = self._steps_in_one()
        if factor == 1:
            return sums
        loss = factor * sums["loss"]
        if trainer.world_size > 1:
            # Processes wait for the gradient of every weight, even of those that a small batch
            # does not use, as in an ensemble with more members than samples.
            loss = loss + 0.0 * torch.stack([w.sum() for w in self.parameters()]).sum()
        return {**sums, "loss": loss}

    def validation_step(  # type: ignore[override]  # a NamedTuple passes through the loop
        self, batch: dict[str, Any], batch_idx: int
    ) -> StepOutput:
        """Log the sums of a batch; the result is for the callbacks."""
        return self._step(batch, "val")

    def step_of(self, stage: Literal["train", "val"]) -> Step:
        """The state of training for the objective."""
        beta = self.annealing(self.current_epoch)
        return Step(beta, self.current_epoch, self.samples["train"], stage)

    def _steps_in_one(self) -> int:
        """Number of batches whose gradients Lightning averages for a step of the optimiser.

        It divides the loss by the number of accumulated batches, and the gradients by the number of
        processes. Multiplied by this number, the step is that of the sum over all these batches, as
        if they were one.
        """
        trainer = self.trainer
        return trainer.accumulate_grad_batches * trainer.world_size

    def _step(self, batch: dict[str, Any], stage: Literal["train", "val"]) -> StepOutput:
        x: Tensor = batch["image"]
        if stage == "train" and self.augment is not None:
            x = self.augment(x)
        if self.channels_last:
            x = x.to(memory_format=CHANNELS_LAST[x.dim()])
        step = self.step_of(stage)
        output = self(x)
        entries = {key: value for key, value in batch.items() if key != FILLER} | {"image": x}
        sums = evaluate(self.objective, entries, output, step)
        if not counts(batch):
            sums = {name: 0.0 * value for name, value in sums.items()}
        self._log_sums(sums, stage, voxels=x[0].numel())
        self.log(
            f"{stage}/beta", step.beta, on_step=False, on_epoch=True, sync_dist=True, batch_size=1,
            logger=False,
        )  # fmt: skip
        return StepOutput(output, sums)

    def _log_sums(self, sums: dict[str, Tensor], stage: str, voxels: int) -> None:
        entries = dict(sums)
        if stage == "val":
            entries["neg_elbo"] = sums["recon"] + self.annealing.target * sums["kl"]
        # Each batch adds its part of the mean: an average of averages over batches or processes
        # would give short batches too much weight.
        samples = self.samples[stage]
        entries["recon_per_voxel"] = sums["recon"] / (samples * voxels)
        entries["kl_per_sample"] = sums["kl"] / samples
        # Lightning's default is an average over batches and devices.
        self.log_dict(
            {f"{stage}/{name}": value.detach() for name, value in entries.items()},
            on_step=False, on_epoch=True, reduce_fx="sum", sync_dist=True, batch_size=1,
            logger=False,
        )  # fmt: skip

    def on_fit_end(self) -> None:
        """Put the weights into the layout of a network that is loaded from a file.

        Layouts select different convolutions, which round differently: a run evaluated at the end
        of its training would differ in the last bits from the same run evaluated later.
        """
        to_contiguous(self.model)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser of all weights, including those of the objective."""
        parameters = [*self.model.parameters()]
        if isinstance(self.objective, nn.Module):
            parameters += self.objective.parameters()
        epochs = self.trainer.max_epochs
        assert epochs is not None
        optimizer, schedule = self.optimizer(parameters, epochs)
        return optimizer if schedule is None else ([optimizer], [schedule])

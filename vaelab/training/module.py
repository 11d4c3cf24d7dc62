"""The only training step: a model, an objective, a schedule of beta, an optimiser."""

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
    """What a validation step hands to the callbacks."""

    output: Any
    """Of the model, a NamedTuple that begins with ``x_hat, mu, logvar``."""
    sums: dict[str, Tensor]
    """Of the objective, over the batch."""


class VAELitModule(L.LightningModule):
    """Trains a VAE on an objective, at the beta of the epoch.

    Logged for each stage, as exact sums over all samples of the epoch: every entry of the
    objective, and, for the epoch, ``beta``. Beside them ``recon_per_voxel`` and
    ``kl_per_sample``, which compare across data sets, and ``val/neg_elbo``: recon + beta · kl at
    the *target* beta, which compares across epochs while beta still rises. ``LogEpoch`` hands them
    to the loggers, all of an epoch at once.

    Args:
        model: the network.
        objective: what is minimised; the weights of an ``nn.Module`` are trained too.
        annealing: beta as a function of the epoch.
        optimizer: makes the steps; see ``vaelab.training.optimizer``.
        train_samples: samples to learn from, over all processes; see ``Step``.
        val_samples: samples to validate on, over all processes.
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
        """What a batch costs at this epoch's beta; its terms are for the callbacks."""
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
            # Processes wait for the gradient of every weight, also of those that a small batch
            # leaves idle, as in an ensemble with more members than samples.
            loss = loss + 0.0 * torch.stack([w.sum() for w in self.parameters()]).sum()
        return {**sums, "loss": loss}

    def validation_step(  # type: ignore[override]  # a NamedTuple passes through the loop
        self, batch: dict[str, Any], batch_idx: int
    ) -> StepOutput:
        """Log the sums of a batch; the output is for the callbacks."""
        return self._step(batch, "val")

    def step_of(self, stage: Literal["train", "val"]) -> Step:
        """Where training stands, as the objective sees it."""
        beta = self.annealing(self.current_epoch)
        return Step(beta, self.current_epoch, self.samples["train"], stage)

    def _steps_in_one(self) -> int:
        """Batches whose gradients Lightning averages for one step of the optimiser.

        It divides the loss by the number of batches that are accumulated, and the gradients by the
        number of processes. The loss is a sum: the step of several batches is that of their sum,
        as if they had been one batch.
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
        seen = {key: value for key, value in batch.items() if key != FILLER} | {"image": x}
        sums = evaluate(self.objective, seen, output, step)
        if not counts(batch):  # of no sample: this process waits for the others
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
        # Means are sums too, each batch's part of them: an average of averages over batches or
        # processes would weigh a short one too much.
        samples = self.samples[stage]
        entries["recon_per_voxel"] = sums["recon"] / (samples * voxels)
        entries["kl_per_sample"] = sums["kl"] / samples
        # Lightning's default averages over batches; a sum has to be asked for, also over devices.
        self.log_dict(
            {f"{stage}/{name}": value.detach() for name, value in entries.items()},
            on_step=False, on_epoch=True, reduce_fx="sum", sync_dist=True, batch_size=1,
            logger=False,
        )  # fmt: skip

    def on_fit_end(self) -> None:
        """Leave the weights in the layout of a network that is loaded from a file.

        Layouts take different convolutions, which round differently: a run judged at the end of
        its training would differ in the last bits from the same run judged later.
        """
        to_contiguous(self.model)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser of all weights, those of the objective among them."""
        parameters = [*self.model.parameters()]
        if isinstance(self.objective, nn.Module):
            parameters += self.objective.parameters()
        epochs = self.trainer.max_epochs
        assert epochs is not None
        made = self.optimizer(parameters, epochs)
        return made.optimizer if made.schedule is None else ([made.optimizer], [made.schedule])

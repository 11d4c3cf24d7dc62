"""Detect failing trainings early: numbers that are not finite, skipped steps."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor

from vaelab.errors import UserError

log = logging.getLogger(__name__)

STEPS_BETWEEN_CHECKS = 50
"""On an accelerator, where reading a number waits for all queued work."""

TERMS = ("image", "recon", "kl", "loss")


class _Step(NamedTuple):
    """The numbers of a batch until they are checked."""

    place: str
    ids: Sequence[str]
    terms: Tensor  # (4,), TERMS; still on the device
    scale: Tensor | None  # of the gradients after this step; still on the device


def _terms(image: Tensor, sums: Mapping[str, Tensor]) -> Tensor:
    # The sum is not finite if any voxel is not.
    values = [image.detach().sum(), sums["recon"], sums["kl"], sums["loss"]]
    return torch.stack([value.detach().float() for value in values])


class StepHealth(Callback):
    """Stops a run whose numbers are not finite, or whose steps are all skipped.

    On the CPU every batch is checked at once. On an accelerator the numbers stay there and are
    checked together, every ``STEPS_BETWEEN_CHECKS`` steps and before an epoch is saved, so that no
    step waits for them; the error still names the first bad batch, and no checkpoint has bad
    weights.

    Under 16-mixed, ``train/grad_scale`` (at the end of the epoch) and ``train/skipped_steps``
    (in the epoch) are logged. A step is skipped when a gradient overflows; the scale then halves.

    Args:
        max_skipped_steps: number of steps that may be skipped in a row.
        steps_between_checks: batches that are checked together; None is 1 on the CPU, and
            ``STEPS_BETWEEN_CHECKS`` elsewhere.
    """

    def __init__(self, max_skipped_steps: int, steps_between_checks: int | None = None) -> None:
        self.max_skipped_steps = max_skipped_steps
        self.steps_between_checks = steps_between_checks
        self._pending: list[_Step] = []
        self._scale = 0.0
        self._skipped = 0  # in this epoch
        self._in_a_row = 0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start counting skipped steps at 0."""
        scale = _grad_scale(trainer)
        if scale is not None:
            self._scale = float(scale)
        self._skipped = 0

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        batch_idx: int,
    ) -> None:
        """Keep the batch's numbers; check them if it is time."""
        place = f"epoch {trainer.current_epoch}, batch {batch_idx}, step {trainer.global_step - 1}"
        terms = _terms(batch["image"], outputs)
        self._pending.append(_Step(place, batch["id"], terms, _grad_scale(trainer)))
        self._check_if_due()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the rest before the checkpoint is saved; log the state of mixed precision."""
        self._check_all()
        if _grad_scale(trainer) is not None:
            state = {"grad_scale": self._scale, "skipped_steps": float(self._skipped)}
            entries = {f"train/{key}": value for key, value in state.items()}
            pl_module.log_dict(entries, logger=False, sync_dist=True)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """The same for validation, by which the best epoch is chosen."""
        place = f"epoch {trainer.current_epoch}, validation batch {batch_idx}"
        terms = _terms(batch["image"], outputs.sums)
        self._pending.append(_Step(place, batch["id"], terms, None))
        self._check_if_due()

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the rest."""
        self._check_all()

    def _check_if_due(self) -> None:
        on_cpu = self._pending[-1].terms.device.type == "cpu"
        usual = 1 if on_cpu else STEPS_BETWEEN_CHECKS
        if len(self._pending) >= (self.steps_between_checks or usual):
            self._check_all()

    def _check_all(self) -> None:
        if not self._pending:
            return
        steps, self._pending = self._pending, []
        table = torch.stack([step.terms for step in steps]).cpu()
        are_finite: list[bool] = table.isfinite().all(1).tolist()
        if not all(are_finite):
            first = are_finite.index(False)
            raise UserError(_not_finite(steps[first], table[first]))
        scales = [step.scale for step in steps if step.scale is not None]
        for scale in torch.stack(scales).tolist() if scales else []:
            skipped = scale < self._scale
            self._skipped += skipped
            self._in_a_row = self._in_a_row + 1 if skipped else 0
            self._scale = scale
            if self._in_a_row > self.max_skipped_steps:
                raise UserError(
                    f"{steps[-1].place}: {self._in_a_row} steps in a row were skipped, more than "
                    f"train.max_skipped_steps={self.max_skipped_steps}: gradients overflow "
                    f"float16 even at a scale of {scale:.3g}; lower train.lr or use "
                    "hardware.precision=bf16-mixed or 32-true"
                )


def _grad_scale(trainer: L.Trainer) -> Tensor | None:
    """Scale of the gradients, still on the device; None without mixed float16."""
    plugin = trainer.precision_plugin
    scaler = plugin.scaler if isinstance(plugin, MixedPrecision) else None
    if scaler is None or not scaler.is_enabled():
        return None
    # get_scale() would wait for the device.
    scale: Tensor = scaler.scale(torch.ones((), device=trainer.strategy.root_device))
    return scale


def _not_finite(step: _Step, terms: Tensor) -> str:
    bad = [name for name, finite in zip(TERMS, terms.isfinite(), strict=True) if not finite]
    cure = (
        "the data hold NaN or infinite values: mend or leave out these samples"
        if "image" in bad
        else "the training diverges: lower train.lr, or leave mixed for hardware.precision=32-true"
    )
    ids = ", ".join(step.ids)
    return f"{step.place}: {', '.join(bad)} not finite in the batch of {ids}; {cure}"

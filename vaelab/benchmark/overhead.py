"""The overhead of Lightning, callbacks and logs over the same steps in a bare loop."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.profilers import SimpleProfiler
from torch.utils.data import DataLoader

from vaelab.benchmark.timing import Timing, seconds_of, synchronise
from vaelab.benchmark.variants import BareStep
from vaelab.training.history import CSVHistory


def lightning_overhead(
    module: L.LightningModule,
    step: BareStep,
    batch: Mapping[str, Any],
    steps: int,
    rounds: int,
    trainer: Mapping[str, Any],
    callbacks: Sequence[Callback],
    folder: Path,
) -> dict[str, Timing]:
    """Seconds of a training step, ``{"bare", "lightning"}``, measured in turn.

    In a single fit every epoch is preceded by as many steps of the bare loop. Both take the batch
    from a loader. An epoch of Lightning includes all hooks and its row in the log, but no
    validation and no checkpoints.

    Args:
        module: for Lightning; trained in place.
        step: the same in a bare loop.
        batch: of the dataset, the input of every step.
        steps: per epoch.
        rounds: epochs that are measured, after another one to warm up.
        trainer: arguments of ``lightning.Trainer`` for the hardware.
        callbacks: of a run.
        folder: for the log.
    """
    samples: Any = [dict(batch)] * steps
    loader: DataLoader[Any] = DataLoader(samples, batch_size=None)
    clock = _InTurn(step, loader)
    L.Trainer(
        **trainer,
        max_epochs=rounds + 1,
        logger=CSVHistory(folder),
        callbacks=[clock, *callbacks],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        log_every_n_steps=1,
        limit_val_batches=0,
    ).fit(module, loader, loader)
    return {
        "bare": Timing(tuple(seconds / steps for seconds in clock.bare[1:])),
        "lightning": Timing(tuple(seconds / steps for seconds in clock.lightning[1:])),
    }


class _InTurn(Callback):
    """Runs the bare loop before every epoch and times both; the first of the callbacks."""

    def __init__(self, step: BareStep, loader: DataLoader[Any]) -> None:
        self.step = step
        self.loader = loader
        self.bare: list[float] = []
        self.lightning: list[float] = []
        self._start = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End the previous epoch, whose row is in the log by now, and run the bare loop."""
        if self.bare:
            self._stop()
        self.bare.append(seconds_of(self._bare_loop, self.step.device))
        self._start = time.perf_counter()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End the last epoch."""
        self._stop()

    def _stop(self) -> None:
        synchronise(self.step.device)
        self.lightning.append(time.perf_counter() - self._start)

    def _bare_loop(self) -> None:
        for batch in self.loader:
            self.step.load(batch)
            self.step.train()


class EpochProfiler(SimpleProfiler):
    """Lightning's profiler of the parts of an epoch; waits for the device at each step.

    The times are thus those of the device. In a run without profiler queued work may hide a slow
    loader, so that the share of waiting is an upper bound.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.first_step_at: float | None = None
        self.training_seconds: list[float] = []
        """Of each epoch, from its start to the end of its last step; validation comes later."""
        self._last_step_at = 0.0

    def stop(self, action_name: str) -> None:
        """Note the time."""
        if action_name == "run_training_batch":
            synchronise(self.device)
            self._last_step_at = time.perf_counter()
            self.first_step_at = self.first_step_at or self._last_step_at
        if action_name == "run_training_epoch":
            self.training_seconds.append(self._last_step_at - self.current_actions[action_name])
        super().stop(action_name)

    def summary(self) -> str:
        """Empty: the numbers are not printed."""
        return ""

    def shares(self) -> dict[str, float]:
        """Shares of the training time, without the first epoch, which fills caches and starts
        workers.
        """
        epochs = self.training_seconds
        assert len(epochs) > 1, "two epochs are needed"
        total = sum(epochs[1:])

        def after_the_first(action: str) -> float:
            values: list[float] = self.recorded_durations[action]
            return sum(values[len(values) // len(epochs) :]) / total

        waiting = after_the_first("[_TrainingEpochLoop].train_dataloader_next")
        steps = after_the_first("run_training_batch")
        return {
            "waiting_for_data": waiting,
            "training_steps": steps,
            "rest": 1 - waiting - steps,
            "seconds": total / (len(epochs) - 1),
            "epochs": len(epochs) - 1,
        }

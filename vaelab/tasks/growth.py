"""``task=growth``: what an epoch costs as cases, voxels and workers grow, and what memory does."""

from __future__ import annotations

import logging
import math
import os
import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback

from vaelab.assembly import Run, Task
from vaelab.atomic import write_json
from vaelab.benchmark.variants import high_water_mark
from vaelab.data.module import SplitDataModule
from vaelab.errors import UserError
from vaelab.models.resnet3d import ResNet3dVAE
from vaelab.objective.annealing import Constant
from vaelab.progress import progress
from vaelab.report.canvas import save_figure
from vaelab.report.growth_figures import growth_figure
from vaelab.runs.folder import RunFolder
from vaelab.training.history import CSVHistory
from vaelab.training.module import VAELitModule

log = logging.getLogger(__name__)

SMALL = 16  # voxels a side where the size is not what grows
SEVERAL = 3  # epochs whose median counts; one before warms up


class Growth(Task):
    """Writes ``growth.json`` and ``growth.png``, on MRI phantoms and a narrow network.

    Args:
        cases: numbers of training samples, at 16³ voxels.
        roi_sizes: sides of the volume in voxels, multiples of 16, with 4 samples.
        workers: numbers of loader processes, with the most cases.
        epochs: over which memory is watched, with the fewest cases; at least 4.
        base_filters: of the network.

    Raises:
        UserError: for a value that cannot work.
    """

    parts = ("dataset", "objective", "optimizer", "hardware", "logging")
    needs_trained_run = False

    def __init__(
        self,
        cases: Sequence[int] = (8, 32, 128, 512),
        roi_sizes: Sequence[int] = (32, 64, 96, 128),
        workers: Sequence[int] = (0, 1, 2, 4),
        epochs: int = 50,
        base_filters: int = 8,
    ) -> None:
        for key, values, smallest in (
            ("cases", cases, 1), ("roi_sizes", roi_sizes, 16), ("workers", workers, 0),
        ):  # fmt: skip
            if not values or min(values) < smallest:
                raise UserError(
                    f"task.{key}={list(values)}: at least one is needed, each {smallest} or more"
                )
        if any(side % 16 for side in roi_sizes):
            raise UserError(f"task.roi_sizes={list(roi_sizes)}: each must be a multiple of 16")
        if epochs < 4:
            raise UserError(f"task.epochs={epochs}: at least 4 are needed; try 50")
        self.cases = sorted(set(cases))
        self.roi_sizes = sorted(set(roi_sizes))
        self.workers = sorted(set(workers))
        self.epochs = epochs
        self.base_filters = base_filters

    def __call__(self, run: Run) -> float:
        """Measure and write.

        Returns:
            MiB by which resident memory grows in an epoch.

        Raises:
            UserError: for a dataset that cannot be made as large as asked.
        """
        folder = run.folder.path / "growth"
        data = self._cohort(run, folder)
        count = len(self.cases) + len(self.roi_sizes) + len(self.workers) + 1
        bar = progress(total=count, desc="growth", shown=run.logging.progress_bar)

        def epochs(cases: int, side: int, workers: int, number: int = SEVERAL) -> _Watch:
            watch = self._fit(run, data, folder, cases, side, workers, number)
            bar.update()
            return watch

        few, many = self.cases[0], self.cases[-1]
        try:
            # First: what large volumes leave to the allocator would hide a leak.
            memory = epochs(few, SMALL, 0, self.epochs).memory
            result: dict[str, Any] = {
                "cases": {str(n): epochs(n, SMALL, 0).seconds for n in self.cases},
                "roi_sizes": {str(side): epochs(4, side, 0).seconds for side in self.roi_sizes},
                "workers": {str(n): epochs(many, SMALL, n).seconds for n in self.workers},
            }
        finally:
            bar.close()
            shutil.rmtree(folder, ignore_errors=True)
        result["memory_mib"] = memory
        settled = memory[len(memory) // 5 :]  # the first epochs fill what is then used again
        slope = float(np.polyfit(np.arange(len(settled)), settled, 1)[0])
        result["memory_mib_per_epoch"] = slope
        write_json(run.folder.result("growth", "json"), result)
        save_figure(growth_figure(result), run.folder.result("growth", "png"))
        log.info("memory grows by %.3f MiB an epoch, over %d epochs", slope, len(settled))
        return slope

    def _cohort(self, run: Run, folder: Path) -> SplitDataModule:
        """Enough phantoms for the most cases, split."""
        patients = math.ceil(max(self.cases[-1], 4) / (1 - run.data.val_split)) + 1
        cohort = run.data.with_patients(patients)
        cohort.splits_dir = RunFolder(folder).splits
        cohort.setup("fit")
        return cohort

    def _fit(
        self,
        run: Run,
        data: SplitDataModule,
        folder: Path,
        cases: int,
        side: int,
        workers: int,
        epochs: int,
    ) -> _Watch:
        fresh = data.limited(cases, folder / f"cache_{side}").with_side(side)
        fresh.num_workers = workers
        fresh.batch_size = min(fresh.batch_size, cases)
        model = ResNet3dVAE(
            len(fresh.channel_names), self.base_filters, z_dim=16, roi_size=[side] * 3
        )
        module = VAELitModule(
            model,
            run.objective,
            Constant(1.0),
            run.optimizer,
            cases,
            1,
            run.hardware.is_channels_last,
        )
        watch = _Watch()
        L.Trainer(
            **run.hardware.trainer_kwargs(),
            max_epochs=epochs + 1,
            logger=CSVHistory(folder / f"logs_{cases}_{side}_{workers}_{epochs}"),
            callbacks=[watch],
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            log_every_n_steps=1,
            limit_val_batches=0,
        ).fit(module, fresh)
        return watch


class _Watch(Callback):
    """Notes time and memory at the end of every epoch."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self.memory: list[float] = []
        """Resident memory after each epoch, in MiB."""

    @property
    def seconds(self) -> float:
        """Median over the epochs after the first, which fills the cache."""
        pairs = zip(self._times, self._times[1:], strict=False)
        return statistics.median(later - earlier for earlier, later in pairs)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._times.append(time.perf_counter())
        self.memory.append(resident_mib())


def resident_mib() -> float:
    """Memory of this process that is resident; elsewhere than on Linux the most it ever was."""
    statm = Path("/proc/self/statm")
    if statm.is_file():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return high_water_mark() / 2**20

"""``task=benchmark``: how fast is this dataset with this model on this machine, and beside what?"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from torch import Tensor
from torch.utils.data import default_collate

from vaelab.assembly import PARTS, Run, Task
from vaelab.atomic import replacing, write_json
from vaelab.benchmark.machine import machine, start_up
from vaelab.benchmark.neighbours import beside_neighbours
from vaelab.benchmark.overhead import EpochProfiler, lightning_overhead
from vaelab.benchmark.steps import measure_steps
from vaelab.benchmark.throughput import data_throughput
from vaelab.benchmark.timing import time_in_turn
from vaelab.benchmark.variants import BareStep, Variant
from vaelab.errors import UserError
from vaelab.models.monai_vae import MonaiVAE
from vaelab.models.vae import VAE
from vaelab.objective.annealing import Constant
from vaelab.progress import is_shown
from vaelab.report.benchmark_figures import benchmark_figure
from vaelab.report.benchmark_text import benchmark_markdown
from vaelab.report.canvas import save_figure
from vaelab.runs.folder import RunFolder
from vaelab.training.callbacks import SeedEachBatch
from vaelab.training.fit import fit
from vaelab.training.hardware import Hardware
from vaelab.training.history import CSVHistory
from vaelab.training.module import VAELitModule
from vaelab.training.settings import LoggingSettings

log = logging.getLogger(__name__)


class Benchmark(Task):
    """Writes ``benchmark.json``, ``benchmark.md`` and ``benchmark.png``.

    Everything that is compared is measured in turn in the same run, so that what else the
    machine does hits all alike; a ratio is the median over the rounds.

    Args:
        variants: of the training step; see ``Variant``. The first is what others are compared to.
        rounds: how often everything is measured.
        seconds: a measurement of a step repeats it until it takes about as long.
        batch_size: of the steps; None takes ``dataset.batch_size``.
        cases: samples for everything that reads data; None takes four batches.
        epochs: of the short real training whose parts are timed, at least 2.
        peer_channels: of MONAI's VarAutoEncoder; None compares with none.
        memory: measure peak memory, in a process for each variant.

    Raises:
        UserError: for a value that cannot work.
    """

    parts = tuple(name for name in PARTS if name not in ("callbacks", "score", "logger"))
    needs_trained_run = False

    def __init__(
        self,
        variants: Sequence[str] = ("fp32",),
        rounds: int = 5,
        seconds: float = 1.0,
        batch_size: int | None = None,
        cases: int | None = None,
        epochs: int = 3,
        peer_channels: Sequence[int] | None = (32, 64, 128, 256),
        memory: bool = True,
    ) -> None:
        least = {
            "rounds": (rounds, 1), "cases": (cases, 1), "epochs": (epochs, 2),
            "batch_size": (batch_size, 1),
        }  # fmt: skip
        for key, (value, smallest) in least.items():
            if value is not None and value < smallest:
                raise UserError(f"task.{key}={value}: at least {smallest} is needed")
        if not seconds >= 0:
            raise UserError(f"task.seconds={seconds}: cannot be negative; try 1.0")
        if not variants:
            raise UserError("task.variants=[]: at least one is needed; try [fp32]")
        self.variants = [Variant(name) for name in dict.fromkeys(variants)]
        self.rounds = rounds
        self.seconds = seconds
        self.batch_size = batch_size
        self.cases = cases
        self.epochs = epochs
        self.peer_channels = peer_channels
        self.memory = memory

    def __call__(self, run: Run) -> float:
        """Measure and write.

        Returns:
            Seconds of a training step of the first variant that could be computed.
        """
        torch.set_float32_matmul_precision("highest")
        data = run.data
        data.setup("fit")
        scratch = run.folder.path / "benchmark"
        batch = self._batch(run, scratch)
        cases = self.cases or 4 * data.batch_size
        bar = run.logging.progress_bar
        measurements: dict[str, Callable[[], Any]] = {
            "start_up": lambda: start_up(self.rounds),
            "data": lambda: data_throughput(data, cases, min(self.rounds, 3), scratch, bar),
            "steps": lambda: measure_steps(
                self._models(run, batch), run.objective, batch, self.variants,
                run.hardware.device, self.rounds, self.seconds, self.memory, bar,
            ),
            "neighbours": lambda: self._neighbours(run, batch),
            "lightning": lambda: self._lightning(run, batch, scratch),
            "epoch": lambda: self._epoch(run, cases, scratch),
        }  # fmt: skip
        result: dict[str, Any] = {"machine": machine(run.hardware.device)}
        result["batch"] = list(batch["image"].shape)
        result["model"] = type(run.model).__name__
        result["rounds"] = self.rounds
        try:
            for name, measure in measurements.items():
                log.info("measuring %s", name)
                result[name] = measure()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        write_json(run.folder.result("benchmark", "json"), result)
        text = benchmark_markdown(result)
        with replacing(run.folder.result("benchmark", "md")) as partial:
            partial.write_text(text, "utf-8")
        save_figure(benchmark_figure(result), run.folder.result("benchmark", "png"))
        log.info("\n%s", text)
        first: float = next(iter(result["steps"]["variants"].values()))["vaelab"]["train"]["median"]
        return first

    def _batch(self, run: Run, folder: Path) -> dict[str, Any]:
        """A batch of real samples, the first ones again where there are too few."""
        size = self.batch_size or run.data.batch_size
        dataset: Any = run.data.limited(size, folder / "batch").dataset("train")
        batch: dict[str, Any] = default_collate([dataset[i % len(dataset)] for i in range(size)])
        return batch

    def _models(self, run: Run, batch: Mapping[str, Any]) -> dict[str, VAE]:
        models = {"vaelab": run.model}
        x: Tensor = batch["image"]
        peer = MonaiVAE.__name__
        if self.peer_channels is not None and type(run.model).__name__ != peer:
            models["monai"] = MonaiVAE(
                tuple(x.shape[2:]), x.shape[1], run.model.z_dim, self.peer_channels
            )
        return models

    def _neighbours(self, run: Run, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
        hardware = run.hardware
        if hardware.device.type != "cpu":
            return []
        step = BareStep(run.model, run.objective, batch, variant_of(hardware), hardware.device)
        return beside_neighbours(step.train, self.seconds)

    def _lightning(self, run: Run, batch: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        hardware, lr = run.hardware, run.train.lr
        variant = variant_of(hardware)
        step = BareStep(run.model, run.objective, batch, variant, hardware.device, lr)
        seconds = time_in_turn({"": step.train}, 1, device=hardware.device)[""].median
        module = VAELitModule(
            run.model, run.objective, Constant(1.0), run.optimizer, len(batch["image"]), 1,
            hardware.is_channels_last,
        )  # fmt: skip
        callbacks: list[Callback] = [SeedEachBatch(run.train.seed)]
        if is_shown(run.logging.progress_bar):
            callbacks.append(TQDMProgressBar(leave=False))
        count = min(max(3, round(self.seconds / seconds)), 200)
        times = lightning_overhead(
            module, step, batch, count, self.rounds, hardware.trainer_kwargs(), callbacks, folder
        )
        ratio = times["lightning"].over(times["bare"])
        return {
            "overhead_percent": {"median": 100 * (ratio.median - 1), "sd": 100 * ratio.sd},
            "variant": step.variant.name,
            "steps_per_epoch": count,
            "seconds": {name: timing.summary() for name, timing in times.items()},
        }

    def _epoch(self, run: Run, cases: int, path: Path) -> dict[str, Any]:
        """A short real training with all its parts, on a few samples."""
        profiler = EpochProfiler(run.hardware.device)
        folder = RunFolder(path)
        data = run.data.limited(cases, folder.cache)
        start = time.perf_counter()
        fit(
            folder, data, run.model, run.objective, Constant(run.train.kl_beta), run.optimizer,
            run.hardware,
            replace(run.train, max_epochs=self.epochs),
            LoggingSettings(0, 0, run.logging.progress_bar),
            [CSVHistory(folder.logs)],
            trainer_kwargs={"profiler": profiler},
        )  # fmt: skip
        assert profiler.first_step_at is not None
        result: dict[str, Any] = profiler.shares()
        result["seconds_to_first_step"] = profiler.first_step_at - start
        result["batch_size"] = data.batch_size
        result["num_workers"] = data.num_workers
        return result


def variant_of(hardware: Hardware) -> Variant:
    """How the trainer of this hardware computes."""
    names = {"32-true": "fp32", "bf16-mixed": "bf16", "16-mixed": "fp16"}
    precision = names[hardware.resolve_precision()]
    return Variant(f"{precision}+channels_last" if hardware.is_channels_last else precision)

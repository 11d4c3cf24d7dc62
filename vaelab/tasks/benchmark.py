"""``task=benchmark``: how fast is this dataset with this model on this machine, and beside what?"""

from __future__ import annotations

import logging
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from torch import Tensor
from tqdm import tqdm

import vaelab
from vaelab.assembly import LoggingSettings, Run
from vaelab.atomic import replacing, write_json
from vaelab.benchmark.overhead import EpochProfiler, lightning_overhead
from vaelab.benchmark.throughput import data_throughput
from vaelab.benchmark.timing import Timing, matmul_peak, time_in_turn
from vaelab.benchmark.variants import PRECISIONS, Step, Variant, flops, peak_memory
from vaelab.errors import UserError
from vaelab.models.monai_vae import MonaiVAE
from vaelab.models.vae import VAE
from vaelab.objective.annealing import Constant
from vaelab.report.benchmark_figures import benchmark_figure
from vaelab.report.benchmark_text import benchmark_markdown
from vaelab.report.canvas import save_figure
from vaelab.runs.folder import RunFolder
from vaelab.tasks.train import Train
from vaelab.training.callbacks import SeedEachBatch
from vaelab.training.hardware import Hardware
from vaelab.training.history import CSVHistory
from vaelab.training.module import VAELitModule

log = logging.getLogger(__name__)

START_UP = {
    "hydra": ["-c", "import hydra"],
    "help": ["-m", "vaelab.run", "--help"],
    "full": ["-c", "import vaelab.tasks.train, vaelab.data.mri.brats"],
}
"""What a fresh interpreter is asked to do."""


class Benchmark:
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
        x = self._batch(run, scratch)
        cases = self.cases or 4 * data.batch_size
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "start_up": self._start_up,
            "data": lambda: data_throughput(
                data, cases, min(self.rounds, 3), scratch, run.logging.progress_bar
            ),
            "steps": lambda: self._steps(run, x),
            "lightning": lambda: self._lightning(run, x, scratch),
            "epoch": lambda: self._epoch(run, cases, scratch),
        }
        result: dict[str, Any] = {"machine": machine(run.hardware.device)}
        result["batch"] = list(x.shape)
        result["model"] = type(run.model).__name__
        result["rounds"] = self.rounds
        try:
            for name, measure in parts.items():
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

    def _batch(self, run: Run, folder: Path) -> Tensor:
        """A batch of real samples, the first ones again where there are too few."""
        size = self.batch_size or run.data.batch_size
        dataset: Any = run.data.limited(size, folder / "batch").dataset("train")
        return torch.stack([dataset[i % len(dataset)]["image"] for i in range(size)])

    def _start_up(self) -> dict[str, Any]:
        places = [str(Path(vaelab.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))}

        def start(arguments: list[str]) -> None:
            command = [sys.executable, *arguments]
            subprocess.run(command, check=True, capture_output=True, env=environment)  # noqa: S603

        calls = {name: partial(start, asked) for name, asked in START_UP.items()}
        if self.rounds > 1:
            for call in calls.values():  # byte code and the page cache
                call()
        times = time_in_turn(calls, min(self.rounds, 3), warm_up=False)
        return {
            "help_over_hydra": times["help"].over(times["hydra"]).summary(),
            "full_over_hydra": times["full"].over(times["hydra"]).summary(),
            "seconds": {name: timing.summary() for name, timing in times.items()},
        }

    def _steps(self, run: Run, x: Tensor) -> dict[str, Any]:
        device = run.hardware.device
        models: dict[str, VAE] = {"vaelab": run.model}
        if self.peer_channels is not None and not isinstance(run.model, MonaiVAE):
            models["monai"] = MonaiVAE(
                tuple(x.shape[2:]), x.shape[1], run.model.z_dim, self.peer_channels
            )
        steps: dict[tuple[str, str], Step] = {}
        unavailable: dict[str, str] = {}
        for variant in self.variants:
            for name, model in models.items():
                reason = variant.why_not(model, device)
                if reason is None:
                    step = Step(model, x, variant, device)
                    reason = _reason_to_fail(step)
                    if reason is None:
                        steps[variant.name, name] = step
                if reason is not None:
                    unavailable[f"{name} {variant.name}"] = reason
        if not steps:
            raise UserError(f"task.variants: none can be computed: {unavailable}")
        calls = {
            f"{variant} {name} {what}": getattr(step, method)
            for (variant, name), step in steps.items()
            for what, method in (("train", "train"), ("forward", "infer"))
        }
        times = time_in_turn(calls, self.rounds, self.seconds, device, run.logging.progress_bar)
        counts = {name: flops(Step(m, x, Variant("fp32"), device)) for name, m in models.items()}
        peaks = {
            name: matmul_peak(device, dtype)
            for name, dtype in PRECISIONS.items()
            if any(step.variant.dtype == dtype for step in steps.values())
        }
        found: dict[str, dict[str, Any]] = {}
        shown = tqdm(steps, desc="memory", leave=False, disable=not run.logging.progress_bar)
        for variant, name in shown:
            entry = found.setdefault(variant, {})
            timings = {what: times[f"{variant} {name} {what}"] for what in ("train", "forward")}
            dtype = next(key for key, d in PRECISIONS.items() if d == Variant(variant).dtype)
            speed = counts[name]["training"] / timings["train"].median
            entry[name] = {what: timing.summary() for what, timing in timings.items()}
            entry[name] |= {
                "samples_per_second": len(x) / timings["train"].median,
                "flops_per_second": speed,
                "share_of_peak": speed / peaks[dtype],
            }
            if self.memory:
                entry[name]["peak_memory"] = peak_memory(models[name], x, Variant(variant), device)
        self._compare(found, times)
        return {
            "variants": found,
            "unavailable": unavailable,
            "matmul_flops_per_second": peaks,
            "flops": counts,
            "parameters": {
                name: sum(weight.numel() for weight in model.parameters())
                for name, model in models.items()
            },
        }

    def _compare(self, found: dict[str, dict[str, Any]], times: Mapping[str, Timing]) -> None:
        """Ratios of training steps: to MONAI's, and to the first variant's."""
        first = next(iter(found))
        for variant, entry in found.items():
            for name in entry:
                mine = times[f"{variant} {name} train"]
                reference = times.get(f"{first} {name} train")
                if reference is not None:
                    entry[name]["times_as_fast_as_first"] = reference.over(mine).summary()
            if {"vaelab", "monai"} <= entry.keys():
                theirs = times[f"{variant} monai train"]
                entry["over_monai"] = times[f"{variant} vaelab train"].over(theirs).summary()

    def _lightning(self, run: Run, x: Tensor, folder: Path) -> dict[str, Any]:
        hardware, lr = run.hardware, run.train.lr
        step = Step(run.model, x, variant_of(hardware), hardware.device, lr)
        seconds = time_in_turn({"": step.train}, 1, device=hardware.device)[""].median
        module = VAELitModule(run.model, Constant(1.0), lr, hardware.is_channels_last)
        callbacks: list[Callback] = [SeedEachBatch(run.train.seed)]
        if run.logging.progress_bar:
            callbacks.append(TQDMProgressBar(leave=False))
        count = min(max(3, round(self.seconds / seconds)), 200)
        times = lightning_overhead(
            module, step, x, count, self.rounds, hardware.trainer_kwargs(), callbacks, folder
        )
        ratio = times["lightning"].over(times["bare"])
        return {
            "overhead_percent": {"median": 100 * (ratio.median - 1), "sd": 100 * ratio.sd},
            "variant": step.variant.name,
            "steps_per_epoch": count,
            "seconds": {name: timing.summary() for name, timing in times.items()},
        }

    def _epoch(self, run: Run, cases: int, folder: Path) -> dict[str, Any]:
        """A short real training with all its parts, on a few cases."""
        profiler = EpochProfiler(run.hardware.device)
        data = run.data.limited(cases, folder / "cache")
        short = replace(
            run,
            folder=RunFolder(folder),
            data=data,
            annealing=Constant(run.train.kl_beta),
            hardware=_Profiled.of(run.hardware, profiler),
            loggers=[CSVHistory(RunFolder(folder).logs)],
            train=replace(run.train, max_epochs=self.epochs),
            logging=LoggingSettings(0, 0, run.logging.progress_bar),
        )
        start = time.perf_counter()
        Train()(short)
        assert profiler.first_step_at is not None
        result: dict[str, Any] = profiler.shares()
        result["seconds_to_first_step"] = profiler.first_step_at - start
        result["batch_size"] = data.batch_size
        result["num_workers"] = data.num_workers
        return result


@dataclass(frozen=True)
class _Profiled(Hardware):
    """Hardware whose trainer is watched."""

    profiler: EpochProfiler | None = None

    @staticmethod
    def of(hardware: Hardware, profiler: EpochProfiler) -> _Profiled:
        same = {each.name: getattr(hardware, each.name) for each in fields(Hardware)}
        return _Profiled(**same, profiler=profiler)

    def trainer_kwargs(self) -> dict[str, Any]:
        return super().trainer_kwargs() | {"profiler": self.profiler}


def variant_of(hardware: Hardware) -> Variant:
    """How the trainer of this hardware computes."""
    kind = hardware.resolve()
    names = {"32-true": "fp32", "bf16-mixed": "bf16", "16-mixed": "fp16"}
    precision = names[hardware.precision]
    if (precision, kind) == ("fp16", "cpu"):
        precision = "fp32"
    return Variant(f"{precision}+channels_last" if hardware.is_channels_last else precision)


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures are of."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), name)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": name,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def _reason_to_fail(step: Step) -> str | None:
    """None when a step succeeds: what a device lacks is found out by asking."""
    try:
        step.train()
        step.infer()
    except (RuntimeError, MemoryError, ImportError) as error:
        return next(iter(str(error).strip().splitlines()), type(error).__name__)
    return None

"""``task=check_install``: what works on this machine, before any data and any run."""

from __future__ import annotations

import importlib.util
import logging
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from vaelab.assembly import Run, Task
from vaelab.atomic import write_json
from vaelab.data.workers import SHARED
from vaelab.errors import UserError
from vaelab.training.hardware import Hardware

log = logging.getLogger(__name__)

EXTRAS = {
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow",),
    "dicom": ("pydicom",),
    "parallel": ("hydra_plugins.hydra_joblib_launcher",),
    "slurm": ("hydra_plugins.hydra_submitit_launcher",),
    "search": ("optuna",),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "umap": ("umap",),
}
"""Extra of the package → what it brings."""
GIB = 2**30
LITTLE_DISK, LITTLE_MEMORY, LITTLE_SHARED = 10 * GIB, 8 * GIB, GIB
WORKER_SECONDS = 60


@dataclass(frozen=True)
class Line:
    """One thing that was tried."""

    what: str
    state: Literal["ok", "absent", "broken"]
    """"absent" is a choice that this machine does not offer; with "broken" none trains."""
    fact: str
    cure: str = ""

    def __str__(self) -> str:
        """As it is logged."""
        told = f"{self.what:<22} {self.state:<6}  {self.fact}"
        return f"{told}; {self.cure}" if self.cure else told


class CheckInstall(Task):
    """Tries devices, precisions, loader workers, extras, memory, disk and shared memory.

    Writes ``check_install.json`` into its run folder.
    """

    parts = ()
    needs_trained_run = False

    def __call__(self, run: Run) -> None:
        """Try, and log a line each.

        Raises:
            UserError: at the end, when a training could not work here.
        """
        lines = []
        for line in self._lines(run.folder.path):
            log.info("%s", line)
            lines.append(line)
        write_json(run.folder.path / "check_install.json", {"lines": [asdict(x) for x in lines]})
        broken = [line.what for line in lines if line.state == "broken"]
        if broken:
            raise UserError(f"this machine cannot train: {', '.join(broken)}; see the lines above")

    def _lines(self, folder: Path) -> Iterator[Line]:
        yield Line("python", "ok", f"{platform.python_version()} on {platform.platform()}")
        yield torchvision_fits()
        yield from devices()
        yield loader_worker()
        for extra in EXTRAS:
            yield extra_installed(extra)
        yield enough(
            "memory", _memory(), LITTLE_MEMORY,
            "lower dataset.batch_size or dataset.roi_size, or set model.activation_checkpointing",
        )  # fmt: skip
        yield enough(
            "disk", shutil.disk_usage(folder).free, LITTLE_DISK,
            "name another disk with run_dir= and dataset.cache_dir=, or set dataset.cache_rate=0",
        )  # fmt: skip
        if SHARED.is_dir():
            yield enough(
                "shared memory", shutil.disk_usage(SHARED).free, LITTLE_SHARED,
                "set dataset.num_workers=0, or start the container with --shm-size=8g",
            )  # fmt: skip


def torchvision_fits() -> Line:
    """Whether PyTorch and torchvision are of one release, without which nothing is imported."""
    import torchvision

    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    try:
        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (RuntimeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        return Line("torch", "broken", f"{versions}: {reason}", "pip install -U torch torchvision")
    return Line("torch", "ok", versions)


def devices() -> Iterator[Line]:
    """Each device, and each precision on it by a step of a small 3D network."""
    cores, threads = os.cpu_count(), torch.get_num_threads()
    yield Line("device cpu", "ok", f"cores {cores}, threads of PyTorch {threads}")
    names = ["cpu"]
    for name, cure in (
        ("cuda", "with an NVIDIA card: install its driver and a CUDA build of PyTorch"),
        ("mps", "on Apple silicon only"),
    ):
        if Hardware(accelerator=name).resolve() == name:
            names.append(name)
            yield Line(f"device {name}", "ok", f"hardware={_option(name)} {_cards(name)}".strip())
        else:
            yield Line(f"device {name}", "absent", "the CPU is used instead", cure)
    for name in names:
        for precision in ("32-true", "bf16-mixed", "16-mixed"):
            if (name, precision) != ("cpu", "16-mixed"):
                yield training_step(name, precision)


def training_step(device: str, precision: str) -> Line:
    """Whether loss and gradients of one step are finite numbers."""
    what = f"{device} {precision}"
    kind = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    try:
        network = nn.Sequential(
            nn.Conv3d(1, 4, 3, 2, 1), nn.GroupNorm(2, 4), nn.SiLU(),
            nn.ConvTranspose3d(4, 1, 4, 2, 1),
        ).to(device)  # fmt: skip
        x = torch.ones(1, 1, 16, 16, 16, device=device)
        with torch.autocast(device, kind, enabled=kind is not None):
            x_hat = network(x)
        (x - x_hat.float()).square().mean().backward()
        finite = all(
            bool(w.grad.isfinite().all()) for w in network.parameters() if w.grad is not None
        )
        fault = "" if finite else "gradients are not finite"
    except (RuntimeError, AssertionError) as error:  # what a device, or PyTorch without it, says
        fault = str(error).splitlines()[0]
    if not fault:
        return Line(what, "ok", "a training step is finite")
    state: Literal["absent", "broken"] = "broken" if what == "cpu 32-true" else "absent"
    other = (
        "reinstall PyTorch"
        if state == "broken"
        else f"choose hardware.precision=32-true on {device}"
    )
    return Line(what, state, fault, other)


class _Numbers(Dataset[int]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        return index


def loader_worker() -> Line:
    """Whether a process of its own can load data."""
    try:
        got = [int(x) for x in DataLoader(_Numbers(), batch_size=None, num_workers=1,
                                          timeout=WORKER_SECONDS)]  # fmt: skip
    except (RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        return Line("loader worker", "absent", reason, "set dataset.num_workers=0")
    assert got == [0, 1, 2, 3]
    most = min(8, os.cpu_count() or 1)
    return Line("loader worker", "ok", f"dataset.num_workers up to {most}, one for each core")


def extra_installed(extra: str) -> Line:
    """Whether the packages of an extra are there."""
    missing = [name for name in EXTRAS[extra] if not _is_there(name)]
    if not missing:
        return Line(f"extra {extra}", "ok", "installed")
    cure = f"where it is needed: pip install 'vaelab[{extra}]'"
    return Line(f"extra {extra}", "absent", f"no {', '.join(missing)}", cure)


def enough(what: str, free: int, little: int, cure: str) -> Line:
    """Whether there is enough of something that is counted in bytes."""
    fact = f"{free / GIB:.1f} GiB free"
    return Line(what, "ok", fact) if free >= little else Line(what, "absent", fact, cure)


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False


def _memory() -> int:
    """Bytes that can be had, where the system says so; else all there are."""
    names: dict[str, Any] = os.sysconf_names if hasattr(os, "sysconf_names") else {}
    if "SC_AVPHYS_PAGES" in names and Path("/proc/meminfo").is_file():
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
        values = dict(line.split(":") for line in lines)
        return int(values["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if names else LITTLE_MEMORY


def _option(device: str) -> str:
    return {"cuda": "cuda_amp", "mps": "mps"}[device]


def _cards(device: str) -> str:
    if device != "cuda":
        return ""
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"({', '.join(names)})"

"""The hardware of a run: what the config asks for, what the machine has, Lightning's arguments."""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.precision import MixedPrecision

from vaelab.errors import UserError
from vaelab.runs.processes import this_process
from vaelab.training.parity import ParityCheck
from vaelab.training.precision import AUTOCAST

log = logging.getLogger(__name__)

CHOICES = {
    "accelerator": ("auto", "cuda", "mps", "cpu"),
    "channels_last": ("auto", True, False),
    "parity_check": ("auto", True, False),
}
PRECISIONS = ("auto", *AUTOCAST)


@dataclass(frozen=True)
class Hardware:
    """Where to compute and how.

    Args:
        accelerator: "auto" picks CUDA, then MPS, then the CPU; one that is not available is
            replaced by the CPU, with a warning.
        devices: number on each machine, a process each, or "auto": all cards, or one CPU.
        num_nodes: machines; several are started by torchrun or srun.
        threads: of the CPU that each process computes with; None leaves PyTorch its choice: all
            cores, or ``OMP_NUM_THREADS``.
        precision: "32-true", "16-mixed", "bf16-mixed", or "auto": 16-mixed on CUDA, else 32-true.
        strategy: Lightning's name; "auto" is "ddp" where there are several processes.
        channels_last: keep images and weights channels-last in memory; "auto" does so on the CPU.
        grad_scale: initial scale of the gradients under 16-mixed. Gradients of a *sum* over
            millions of voxels overflow float16 at PyTorch's 65536 for many steps, and even at 1.
        growth_interval: steps without an overflow after which the scale is doubled.
        parity_check: compare the first batch with the CPU in float32 before training; "auto" does
            so on MPS, and on the CPU in bfloat16.

    Raises:
        UserError: for any other value.
    """

    accelerator: str = "auto"
    devices: int | str = 1
    num_nodes: int = 1
    threads: int | None = None
    precision: str | int = "auto"
    strategy: str = "auto"
    channels_last: bool | str = "auto"
    grad_scale: float = 2.0**-8
    growth_interval: int = 2000
    parity_check: bool | str = "auto"

    def __post_init__(self) -> None:
        for key, values in CHOICES.items():
            if getattr(self, key) not in values:
                names = ", ".join(str(value).lower() for value in values)
                raise UserError(f"hardware.{key}={getattr(self, key)}: one of {names}")
        if self.precision not in PRECISIONS:
            near = [name for name in PRECISIONS if name.startswith(f"{self.precision}-")]
            cure = f"; did you mean {near[0]}?" if near else ""
            raise UserError(
                f"hardware.precision={self.precision}: one of {', '.join(PRECISIONS)}{cure}"
            )
        if self.devices != "auto" and (not isinstance(self.devices, int) or self.devices < 1):
            raise UserError(f"hardware.devices={self.devices}: a number from 1 on, or auto")
        if self.num_nodes < 1:
            raise UserError(f"hardware.num_nodes={self.num_nodes}: at least 1 is needed")
        if self.threads is not None and self.threads < 1:
            raise UserError(f"hardware.threads={self.threads}: at least 1 is needed, or null")
        if not self.grad_scale > 0:
            raise UserError(f"hardware.grad_scale={self.grad_scale}: must be above 0; try 0.0039")
        if self.growth_interval < 1:
            raise UserError(
                f"hardware.growth_interval={self.growth_interval}: at least 1 is needed; try 2000"
            )

    @property
    def device(self) -> torch.device:
        """The device that computes, after any fallback."""
        return torch.device(self.resolve())

    def set_threads(self) -> None:
        """Let this process compute with as many threads of the CPU as were asked for."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)

    def resolve(self) -> str:
        """The accelerator in use, "cuda", "mps" or "cpu": the one asked for, else the CPU."""
        available = {
            "cuda": torch.cuda.is_available(),
            "mps": torch.backends.mps.is_available(),
            "cpu": True,
        }
        if self.accelerator == "auto":
            return next(name for name in available if available[name])
        return self.accelerator if available[self.accelerator] else "cpu"

    def count_processes(self) -> int:
        """Number of processes that train together, one for each device of each machine."""
        kind, devices = self.resolve(), self.devices
        if devices == "auto":
            devices = max(1, torch.cuda.device_count()) if kind == "cuda" else 1
        return int(devices) * self.num_nodes

    def check_processes(self, started: int) -> int:
        """Number of processes that train together.

        Args:
            started: number of processes that a launcher has started; 0 without a launcher.

        Raises:
            UserError: for a number that has no effect, or that differs from ``started``.
        """
        kind, count = self.resolve(), self.count_processes()
        asked = f"hardware.devices={self.devices} hardware.num_nodes={self.num_nodes}"
        if count > 1 and kind == "mps":
            raise UserError(f"{asked}: an Apple machine has one device; choose hardware.devices=1")
        if kind == "cuda" and count // self.num_nodes > torch.cuda.device_count():
            raise UserError(f"{asked}: this machine has {torch.cuda.device_count()} cards")
        if started and started != count:
            raise UserError(
                f"{asked}: asks for {count} processes, and {started} were started; set "
                "hardware.devices to the number on each machine, and hardware.num_nodes"
            )
        if self.num_nodes > 1 and not started:
            raise UserError(f"{asked}: start a process for each device by torchrun or srun")
        return count

    @property
    def is_channels_last(self) -> bool:
        """Whether images and weights are kept channels-last."""
        if self.channels_last == "auto":
            return self.resolve() == "cpu"
        return bool(self.channels_last)

    def resolve_precision(self) -> str:
        """The precision in use, one of ``AUTOCAST``; the CPU has no 16-mixed."""
        kind = self.resolve()
        if self.precision == "auto":
            return "16-mixed" if kind == "cuda" else "32-true"
        return "32-true" if (self.precision, kind) == ("16-mixed", "cpu") else str(self.precision)

    def callbacks(self) -> list[Callback]:
        """Callbacks that a trainer on this hardware needs."""
        kind = self.resolve()
        doubtful = kind == "mps" or (kind, self.resolve_precision()) == ("cpu", "bf16-mixed")
        wanted = doubtful if self.parity_check == "auto" else self.parity_check
        return [ParityCheck()] if wanted else []

    def trainer_kwargs(self) -> dict[str, Any]:
        """Arguments for ``lightning.Trainer``; logs a warning for every fallback."""
        kind = self.resolve()
        if self.accelerator not in ("auto", kind):
            log.warning(
                "hardware.accelerator=%s is not available on this machine (%s); using the CPU",
                *(self.accelerator, _why_not(self.accelerator)),
            )
        precision = self.resolve_precision()
        if self.precision not in ("auto", precision):
            log.warning("hardware.precision=16-mixed needs a GPU; using 32-true on the CPU")
        plugins: list[Any] = []
        if precision == "16-mixed":
            scaler = torch.amp.GradScaler(
                kind, init_scale=self.grad_scale, growth_interval=self.growth_interval
            )
            plugins.append(MixedPrecision("16-mixed", kind, scaler))
        log.info("computing on %s in %s", kind, precision)
        # Trainer.fit looks for SLURM in any environment, and warns where srun is merely installed.
        warnings.filterwarnings("ignore", message="The `srun` command is available")
        kwargs: dict[str, Any] = {
            "accelerator": "gpu" if kind == "cuda" else kind,
            "devices": self.devices if kind == "cuda" or self.devices != "auto" else 1,
            "strategy": "auto" if self.strategy == "ddp" else self.strategy,
            "plugins": [*plugins, _cluster()],
        }
        if not plugins:  # Lightning takes the plugin or the name, not both
            kwargs["precision"] = precision
        if self.count_processes() > 1:
            kwargs |= {
                "num_nodes": self.num_nodes,
                "strategy": "ddp" if self.strategy == "auto" else self.strategy,
                "sync_batchnorm": kind == "cuda",
                "use_distributed_sampler": False,  # it repeats samples: sums count them twice
            }
        return kwargs


def _cluster() -> ClusterEnvironment:
    """The launcher that has started this process, as Lightning's plugin.

    Left alone, Lightning takes any process in a SLURM allocation for one of several, warns of an
    unused ``srun``, and requeues jobs that their launcher requeues too. It refuses processes that
    ``srun --ntasks`` has started.
    """
    launcher = this_process().launcher
    if launcher == "torchrun":
        return TorchElasticEnvironment()
    if launcher == "srun":
        nodes = os.environ.get("SLURM_STEP_NODELIST", "127.0.0.1")
        alone = os.environ.get("SLURM_STEP_NUM_NODES", "1") == "1"
        first = "127.0.0.1" if alone else SLURMEnvironment.resolve_root_node_address(nodes)
        for name, value in {
            "LOCAL_RANK": os.environ["SLURM_LOCALID"],
            "NODE_RANK": os.environ["SLURM_NODEID"],
            "MASTER_ADDR": first,
            # Of the job, so that others on the same machines have another.
            "MASTER_PORT": str(15_000 + int(os.environ["SLURM_JOB_ID"]) % 20_000),
        }.items():
            os.environ.setdefault(name, value)
    return LightningEnvironment()


def _why_not(accelerator: str) -> str:
    if accelerator == "mps":
        if not torch.backends.mps.is_built():
            return "torch.backends.mps.is_built() is False: this PyTorch has no MPS"
        return "torch.backends.mps.is_available() is False: macOS 12.3+ on Apple silicon is needed"
    return "torch.cuda.is_available() is False"

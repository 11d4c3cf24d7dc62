"""A piece of hardware as Lightning's Trainer wants it: what was asked for and what there is."""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    LSFEnvironment,
    MPIEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.plugins.precision import MixedPrecision

from vaelab.errors import UserError
from vaelab.training.parity import ParityCheck

log = logging.getLogger(__name__)

ACCELERATORS = ("auto", "cuda", "mps", "cpu")
PRECISIONS = ("auto", "32-true", "16-mixed", "bf16-mixed")


@dataclass(frozen=True)
class Hardware:
    """Where to compute and how.

    Args:
        accelerator: "auto" picks CUDA, then MPS, then the CPU; a name that is not there falls
            back to the CPU and says so.
        devices: how many, or "auto" for all.
        precision: "32-true", "16-mixed", "bf16-mixed", or "auto": 16-mixed on CUDA, else 32-true.
        strategy: Lightning's name, such as "auto" or "ddp".
        channels_last: keep images and weights channels-last in memory; "auto" does so on the CPU.
        grad_scale: initial scale of the gradients under 16-mixed. Gradients of a *sum* over
            millions of voxels overflow float16 at PyTorch's 65536 for many steps, and even at 1.
        growth_interval: steps without an overflow after which the scale is doubled.
        parity_check: compare the first batch with the CPU in float32 before training; "auto" does
            so on MPS, and on the CPU in bfloat16.

    Raises:
        UserError: for a value that is none of the above.
    """

    accelerator: str = "auto"
    devices: int | str = 1
    precision: str = "auto"
    strategy: str = "auto"
    channels_last: bool | str = "auto"
    grad_scale: float = 2.0**-8
    growth_interval: int = 2000
    parity_check: bool | str = "auto"

    def __post_init__(self) -> None:
        if self.accelerator not in ACCELERATORS:
            raise UserError(
                f"hardware.accelerator={self.accelerator}: one of {', '.join(ACCELERATORS)}"
            )
        if self.precision not in PRECISIONS:
            raise UserError(f"hardware.precision={self.precision}: one of {', '.join(PRECISIONS)}")
        if not self.grad_scale > 0:
            raise UserError(f"hardware.grad_scale={self.grad_scale}: must be above 0; try 0.0039")
        if self.growth_interval < 1:
            raise UserError(
                f"hardware.growth_interval={self.growth_interval}: at least 1 is needed; try 2000"
            )
        for key in ("channels_last", "parity_check"):
            value = getattr(self, key)
            if value not in (True, False, "auto"):
                raise UserError(f"hardware.{key}={value}: one of auto, true, false")

    @property
    def device(self) -> torch.device:
        """The device that computes, after any fallback."""
        return torch.device(self.resolve())

    def resolve(self) -> str:
        """Name what is used of "cuda", "mps" and "cpu": what was asked for, else the CPU."""
        available = {
            "cuda": torch.cuda.is_available(),
            "mps": torch.backends.mps.is_available(),
            "cpu": True,
        }
        if self.accelerator == "auto":
            return next(name for name, there in available.items() if there)
        return self.accelerator if available[self.accelerator] else "cpu"

    @property
    def is_channels_last(self) -> bool:
        """Whether images and weights are kept channels-last."""
        if self.channels_last == "auto":
            return self.resolve() == "cpu"
        return bool(self.channels_last)

    def resolve_precision(self) -> str:
        """What is used of "32-true", "16-mixed" and "bf16-mixed"; the CPU has no 16-mixed."""
        kind = self.resolve()
        if self.precision == "auto":
            return "16-mixed" if kind == "cuda" else "32-true"
        return "32-true" if (self.precision, kind) == ("16-mixed", "cpu") else self.precision

    def callbacks(self) -> list[Callback]:
        """What a trainer on this hardware needs beside its own callbacks."""
        kind = self.resolve()
        doubtful = kind == "mps" or (kind, self.resolve_precision()) == ("cpu", "bf16-mixed")
        wanted = doubtful if self.parity_check == "auto" else self.parity_check
        return [ParityCheck()] if wanted else []

    def trainer_kwargs(self) -> dict[str, Any]:
        """Arguments for ``lightning.Trainer``; logs every fallback in a plain sentence."""
        kind = self.resolve()
        if self.accelerator not in ("auto", kind):
            log.warning(
                "hardware.accelerator=%s is not available on this machine (%s); using the CPU",
                *(self.accelerator, _why_not(self.accelerator)),
            )
        precision = self.resolve_precision()
        if self.precision not in ("auto", precision):
            log.warning("hardware.precision=16-mixed needs a GPU; using 32-true on the CPU")
        plugins: list[Any] = _environment()
        if precision == "16-mixed":
            scaler = torch.amp.GradScaler(
                kind, init_scale=self.grad_scale, growth_interval=self.growth_interval
            )
            plugins.append(MixedPrecision("16-mixed", kind, scaler))
        log.info("computing on %s in %s", kind, precision)
        kwargs: dict[str, Any] = {
            "accelerator": "gpu" if kind == "cuda" else kind,
            "devices": self.devices if kind == "cuda" else 1,
            "strategy": self.strategy if kind == "cuda" else "auto",
        }
        if precision != "16-mixed":  # Lightning takes the plugin or the name, not both
            kwargs["precision"] = precision
        # Trainer.fit asks for SLURM in any environment, and warns where srun is only installed.
        warnings.filterwarnings("ignore", message="The `srun` command is available")
        return kwargs | {"plugins": plugins}


def _environment() -> list[ClusterEnvironment]:
    """Who has started the processes; empty where ``srun`` has, which Lightning sees by itself.

    Lightning takes any allocation with several tasks for processes that srun has started, and
    refuses or waits for the others. Only in a step of srun's are there really several.
    """
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return []
    others = (TorchElasticEnvironment, LSFEnvironment, MPIEnvironment)  # in Lightning's order
    return [next((kind() for kind in others if kind.detect()), LightningEnvironment())]


def _why_not(accelerator: str) -> str:
    if accelerator == "mps":
        if not torch.backends.mps.is_built():
            return "torch.backends.mps.is_built() is False: this PyTorch has no MPS"
        return "torch.backends.mps.is_available() is False: macOS 12.3+ on Apple silicon is needed"
    return "torch.cuda.is_available() is False"

"""A training step without Lightning, in variants of precision, layout and compilation."""

from __future__ import annotations

import copy
import logging
import multiprocessing
import pickle
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vaelab.errors import UserError
from vaelab.models.vae import VAE
from vaelab.objective.contract import Objective, Step, evaluate
from vaelab.training.layout import CHANNELS_LAST, to_channels_last
from vaelab.training.precision import autocast

log = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Part of a variant's name → dtype of its autocast."""
OPTIONS = ("channels_last", "checkpointing", "compile")


@dataclass(frozen=True)
class Variant:
    """One way to compute the same step, written ``bf16+channels_last``.

    ``fp32``, ``bf16`` or ``fp16`` (the last two by autocast; the default is fp32),
    ``channels_last`` (images and weights), ``checkpointing`` (activations recomputed in the
    backward pass), ``compile`` (``torch.compile``).

    Raises:
        UserError: for any other part.
    """

    name: str
    dtype: torch.dtype = field(init=False)
    options: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        parts = self.name.split("+")
        dtypes = [part for part in parts if part in DTYPES]
        unknown = [part for part in parts if part not in (*DTYPES, *OPTIONS)]
        if unknown or len(dtypes) > 1:
            raise UserError(
                f"task.variants: {self.name}: join one of {', '.join(DTYPES)} and any of "
                f"{', '.join(OPTIONS)} by +"
            )
        object.__setattr__(self, "dtype", DTYPES[dtypes[0] if dtypes else "fp32"])
        object.__setattr__(self, "options", frozenset(parts) & frozenset(OPTIONS))

    def layout(self, dimensions: int) -> torch.memory_format:
        """Memory format of a batch with this number of dimensions, and of the weights."""
        if "channels_last" not in self.options:
            return torch.contiguous_format
        return CHANNELS_LAST[dimensions]

    def why_not(self, model: nn.Module, device: torch.device) -> str | None:
        """Why the variant is not available for ``model`` on ``device``; None if it is."""
        if self.dtype == torch.float16 and device.type == "cpu":
            return "16-mixed needs a GPU"
        if self.dtype == torch.bfloat16 and device.type == "cuda":
            return None if torch.cuda.is_bf16_supported() else "this card has no bfloat16"
        if "checkpointing" in self.options and not _checkpointed(model):
            return f"{type(model).__name__} has no activation checkpointing"
        return None


class BareStep:
    """A bare training step of a copy of ``model`` on one batch, AdamW included.

    Args:
        model: is copied and stays as it is.
        objective: what is minimised, at beta 1; copied too.
        batch: of the dataset.
        variant: how to compute.
        device: where to compute.
        lr: learning rate of AdamW.
    """

    def __init__(
        self,
        model: VAE,
        objective: Objective,
        batch: Mapping[str, Any],
        variant: Variant,
        device: torch.device,
        lr: float = 1e-4,
    ) -> None:
        self.variant = variant
        self.device = device
        self.load(batch)
        self.model = copy.deepcopy(model).to(device).train()
        self.objective = copy.deepcopy(objective)
        weights = [*self.model.parameters()]
        if isinstance(self.objective, nn.Module):
            weights += self.objective.to(device).train().parameters()
        if "channels_last" in variant.options:
            to_channels_last(self.model)
        for module in _checkpointed(self.model):
            module.checkpointing = "checkpointing" in variant.options
        self.network: Any = self.model
        if "compile" in variant.options:
            self.network = torch.compile(self.model)
        self.optimizer = torch.optim.AdamW(weights, lr=lr, fused=True)
        half = variant.dtype == torch.float16
        self.scaler = torch.amp.GradScaler(device.type, init_scale=2.0**-8, enabled=half)

    def load(self, batch: Mapping[str, Any]) -> None:
        """Use another batch from now on."""
        self.batch = move_data_to_device(dict(batch), self.device)
        layout: Any = self.variant.layout(batch["image"].dim())
        self.batch["image"] = self.batch["image"].to(memory_format=layout)
        self.step = Step(1.0, 0, len(batch["image"]), "train")

    def forward(self) -> Any:
        """Reconstruct the batch."""
        with autocast(self.device, self.variant.dtype):
            return self.network(self.batch["image"])

    def backward(self) -> Tensor:
        """Compute the gradients, scaled under fp16; returns the loss, a sum, detached."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = evaluate(self.objective, self.batch, self.forward(), self.step)["loss"]
        scaled: Tensor = self.scaler.scale(loss)
        scaled.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def train(self) -> None:
        """Take one training step."""
        self.backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def infer(self) -> None:
        """Run a forward pass without gradients. The model stays in training mode: it computes the
        same, and switching would compile it again.
        """
        with torch.no_grad():
            self.forward()


def flops(step: BareStep) -> dict[str, int]:
    """Floating-point operations of a forward pass, and of forward and backward pass together.

    Only matrix products and convolutions count, a multiplication and an addition as two.
    """
    operations = {}
    for name, call in (("forward", step.forward), ("training", step.backward)):
        with FlopCounterMode(display=False) as counter:
            call()
        operations[name] = int(counter.get_total_flops())
    return operations


def peak_memory(
    model: VAE,
    objective: Objective,
    batch: Mapping[str, Any],
    variant: Variant,
    device: torch.device,
) -> dict[str, int]:
    """Peak memory of two training steps in bytes: ``rss``, and ``device`` on CUDA.

    Measured in a subprocess, since the high-water mark of a process never falls; ``rss`` therefore
    includes the libraries. Empty when the subprocess was killed for lack of memory.
    """
    # As bytes: tensors would be passed through shared memory, of which containers have little.
    threads = torch.get_num_threads()
    job = pickle.dumps((model, objective, dict(batch), variant.name, str(device), threads))
    context = multiprocessing.get_context("spawn")
    # Not a Pool, which waits for ever when its worker is killed.
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(_peak, job).result()
        except BrokenProcessPool:
            log.warning("%s: the process that measures its memory was killed", variant.name)
            return {}


def _peak(job: bytes) -> dict[str, int]:
    model, objective, batch, variant, name, threads = pickle.loads(job)  # noqa: S301  # from peak_memory
    torch.set_num_threads(threads)
    device = torch.device(name)
    step = BareStep(model, objective, batch, Variant(variant), device)
    for _ in range(2):  # AdamW allocates its moments in the first
        step.train()
    peak = {"rss": high_water_mark()} if sys.platform != "win32" else {}
    if device.type == "cuda":
        peak["device"] = torch.cuda.max_memory_allocated(device)
    return peak


def high_water_mark() -> int:
    """Peak memory of this process in bytes; not on Windows."""
    status = Path("/proc/self/status")
    if status.is_file():
        # ru_maxrss of a child starts at the value of its parent when it was forked.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _checkpointed(model: nn.Module) -> Sequence[Any]:
    return [module for module in model.modules() if hasattr(module, "checkpointing")]

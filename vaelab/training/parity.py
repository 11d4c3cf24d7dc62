"""Compare a device with the CPU on one sample before a run is trained on it.

With torch 2.15 and oneDNN on an Intel Xeon, gradients of Conv3d weights in bfloat16 on a grid of 2³
voxels (roi_size 16 or 32) are off by their whole norm or infinite, without a word (2026-11-24).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from vaelab.errors import UserError
from vaelab.models.vae import VAE
from vaelab.objective.contract import Objective, Step, evaluate
from vaelab.training.module import VAELitModule
from vaelab.training.noise import CPUNoise
from vaelab.training.precision import AUTOCAST, autocast

log = logging.getLogger(__name__)

CURE = "use hardware=cpu hardware.precision=32-true, or another version of PyTorch or of the system"


class Tolerance(NamedTuple):
    """Largest tolerated norm of a difference, relative to the norm of the reference."""

    output: float
    gradient: float
    negligible: float
    """Share of the norm of all gradients below which a gradient is rounding, as that of a bias
    before a norm layer."""


# On a CPU, Exp1's network differs from itself in another layout by 5e-5 at most, and under bfloat16
# autocast by 0.025 (gradients of single weights, 2x4x64^3). A wrong kernel is off by about 1.
TOLERANCE = {
    torch.float32: Tolerance(1e-3, 1e-2, 1e-4),
    torch.float16: Tolerance(0.02, 0.1, 1e-3),
    torch.bfloat16: Tolerance(0.05, 0.25, 1e-2),
}
SCALE = 2.0**-8
"""Factor of both losses that keeps gradients of a sum over voxels within float16."""


class Judged(NamedTuple):
    """A model with the objective that it is trained on, and the step at which it is evaluated."""

    model: VAE
    objective: Objective
    step: Step

    def on(self, device: torch.device | str) -> Judged:
        """A copy on a device."""
        model, objective = copy.deepcopy((self.model, self.objective))
        if isinstance(objective, nn.Module):
            objective = objective.to(device)
        return Judged(model.to(device), objective, self.step)


def check_parity(
    judged: Judged,
    batch: Mapping[str, Any],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Compare outputs, loss and gradients of one sample with those on the CPU in float32.

    In training mode, with the same weights and the same noise. ``judged`` stays as it is.

    Args:
        judged: the network and its objective, on any device.
        batch: of the dataset; only its first sample is used.
        device: to be compared with the CPU.
        dtype: of its autocast; float32 is none.

    Raises:
        UserError: naming the first tensor that differs, or the operation that the device lacks.
    """
    reference, candidate = judged.on("cpu"), judged.on(device)
    sample = {key: value[:1] for key, value in batch.items()}
    try:
        there = _compute(candidate, move_data_to_device(sample, device), dtype)
    except (RuntimeError, TypeError) as error:  # NotImplementedError is a RuntimeError
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"hardware.accelerator={device.type}: this model cannot be computed there in "
            f"{_name(dtype)} ({reason}); use hardware=cpu hardware.precision=32-true"
        ) from error
    sample = move_data_to_device(sample, torch.device("cpu"))
    here = _compute(reference, sample, torch.float32)
    gradients = [tensor.flatten() for name, tensor in here.items() if name.startswith("gradient")]
    floor = TOLERANCE[dtype].negligible * float(torch.cat(gradients).norm())
    for name, expected in here.items():
        is_gradient = name.startswith("gradient")
        tolerance = TOLERANCE[dtype].gradient if is_gradient else TOLERANCE[dtype].output
        difference = relative_difference(there[name], expected, floor if is_gradient else 0.0)
        if not difference <= tolerance:  # also for NaN
            x = sample["image"]
            where = _first_wrong_module(reference.model, candidate.model, x, device, dtype)
            raise UserError(
                f"hardware.accelerator={device.type}: {name} in {_name(dtype)} differs from the "
                f"CPU's in float32 by {difference:.2g} of its norm, {tolerance:g} is "
                f"tolerated{where}; {CURE}"
            )
    log.info("%s in %s computes what the CPU computes in float32", device.type, _name(dtype))


def relative_difference(actual: Tensor, expected: Tensor, floor: float = 0.0) -> float:
    """Norm of the difference over the norm of ``expected`` (at least ``floor``); 0 if equal."""
    actual, expected = actual.detach().cpu().double(), expected.detach().cpu().double()
    difference = (actual - expected).norm()
    return 0.0 if difference == 0 else float(difference / expected.norm().clamp(min=floor))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _compute(judged: Judged, batch: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """Outputs, loss and gradients by name, in the order in which they are computed."""
    model, objective, step = judged
    parts = {"": model} | ({"objective.": objective} if isinstance(objective, nn.Module) else {})
    for part in parts.values():
        part.train()
        part.zero_grad(set_to_none=True)
    x = batch["image"]
    with autocast(x.device, dtype), CPUNoise(0):
        output = model(x)
        loss = evaluate(objective, batch, output, step)["loss"] * SCALE
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = {
        f"gradient of {prefix}{name}": weight.grad
        for prefix, part in parts.items()
        for name, weight in part.named_parameters()
        if weight.grad is not None
    }
    computed = {"mu": output.mu, "logvar": output.logvar, "x_hat": output.x_hat, "loss": loss}
    return computed | gradients


def _first_wrong_module(
    reference: VAE, candidate: VAE, x: Tensor, device: torch.device, dtype: torch.dtype
) -> str:
    """Which innermost module is the first to differ, as the end of a sentence."""
    here = _outputs(reference, x.to("cpu"), torch.float32)
    there = _outputs(candidate, x.to(device), dtype)
    for name, output in here.items():
        if not relative_difference(there[name], output) <= TOLERANCE[dtype].output:
            kind = type(reference.get_submodule(name)).__name__
            return f"; the first module to differ is {name} ({kind})"
    return "; the outputs of all modules agree, so the error is in a backward pass"


def _outputs(model: VAE, x: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """Innermost module → its output, in the order of computation."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        # A copy: the next activation may work in place.
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            outputs[name] = output.detach().to("cpu", copy=True)

        return hook

    innermost = [(n, m) for n, m in model.named_modules() if not list(m.children())]
    handles = [module.register_forward_hook(keep(name)) for name, module in innermost]
    with torch.no_grad(), autocast(x.device, dtype), CPUNoise(0):
        model(x)
    for handle in handles:
        handle.remove()
    return outputs


class ParityCheck(Callback):
    """Calls ``check_parity`` with the first batch of a run, before the first step."""

    def __init__(self) -> None:
        self._done = False

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Check once, in the run's precision."""
        if not self._done:
            assert isinstance(pl_module, VAELitModule)
            # At the target beta: at that of the first epoch, 0, the KL would not be compared.
            step = pl_module.step_of("train")._replace(beta=pl_module.annealing.target)
            judged = Judged(pl_module.model, pl_module.objective, step)
            check_parity(judged, batch, pl_module.device, AUTOCAST[str(trainer.precision)])
            self._done = True

"""Does a device compute what the CPU computes? One batch, before it is trusted with a run."""

from __future__ import annotations

import copy
import logging
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from vaelab.errors import UserError
from vaelab.models.vae import VAE
from vaelab.objective.elbo import compute_elbo

log = logging.getLogger(__name__)

PRECISIONS = {"32-true": torch.float32, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
CURE = "use hardware=cpu hardware.precision=32-true, or another version of PyTorch or of the system"


class Tolerance(NamedTuple):
    """Largest norm of a difference, relative to the reference's own norm."""

    output: float
    gradient: float
    negligible: float
    """Of the norm of all gradients: what is less is rounding, as for a bias before a norm layer."""


# On a CPU, Exp1's network differs from itself in another layout by 5e-5 at most, and under bfloat16
# autocast by 0.025 (gradients of single weights, 2x4x64^3). A wrong kernel is off by about 1.
TOLERANCE = {
    torch.float32: Tolerance(1e-3, 1e-2, 1e-4),
    torch.float16: Tolerance(0.02, 0.1, 1e-3),
    torch.bfloat16: Tolerance(0.05, 0.25, 1e-2),
}
SCALE = 2.0**-8
"""Of the loss, on both sides: keeps gradients of a sum over voxels within float16."""


def check_parity(
    model: VAE, batch: Tensor, device: torch.device, dtype: torch.dtype = torch.float32
) -> None:
    """Compare outputs, loss and gradients of one batch with those on the CPU in float32.

    In training mode, with the same weights and the same noise. ``model`` stays as it is.

    Args:
        model: the network, on any device.
        batch: (B, C, ...); the first sample is enough and is all that is used.
        device: the one in question.
        dtype: of its autocast; float32 is none.

    Raises:
        UserError: naming the first tensor that differs, or the operation that the device lacks.
    """
    reference = copy.deepcopy(model).to("cpu")
    candidate = copy.deepcopy(model).to(device)
    x = batch[:1].detach()
    try:
        there = _compute(candidate, x.to(device), dtype)
    except (RuntimeError, TypeError) as error:  # NotImplementedError is a RuntimeError
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"hardware.accelerator={device.type}: this model cannot be computed there in "
            f"{_name(dtype)} ({reason}); use hardware=cpu hardware.precision=32-true"
        ) from error
    here = _compute(reference, x.to("cpu"), torch.float32)
    gradients = [tensor.flatten() for name, tensor in here.items() if name.startswith("gradient")]
    floor = TOLERANCE[dtype].negligible * float(torch.cat(gradients).norm())
    for name, expected in here.items():
        is_gradient = name.startswith("gradient")
        tolerance = TOLERANCE[dtype].gradient if is_gradient else TOLERANCE[dtype].output
        difference = relative_difference(there[name], expected, floor if is_gradient else 0.0)
        if not difference <= tolerance:  # a NaN is no agreement
            where = _first_wrong_module(reference, candidate, x, device, dtype)
            raise UserError(
                f"hardware.accelerator={device.type}: {name} in {_name(dtype)} differs from the "
                f"CPU's in float32 by {difference:.2g} of its norm, {tolerance:g} is "
                f"tolerated{where}; {CURE}"
            )
    log.info("%s in %s computes what the CPU computes in float32", device.type, _name(dtype))


def relative_difference(found: Tensor, expected: Tensor, floor: float = 0.0) -> float:
    """Norm of the difference over the norm of ``expected`` (at least ``floor``); 0 for equals."""
    found, expected = found.detach().cpu().double(), expected.detach().cpu().double()
    difference = (found - expected).norm()
    return 0.0 if difference == 0 else float(difference / expected.norm().clamp(min=floor))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _autocast(x: Tensor, dtype: torch.dtype) -> torch.autocast:
    mixed = dtype != torch.float32
    return torch.autocast(x.device.type, dtype=dtype if mixed else None, enabled=mixed)


def _compute(model: VAE, x: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """Name → tensor, in the order in which they are computed."""
    model.train()
    model.zero_grad(set_to_none=True)
    with _autocast(x, dtype):
        mu, logvar = model.encode(x)
        # Drawn on the CPU: generators of different devices give different numbers.
        eps = torch.randn(mu.shape, generator=torch.Generator().manual_seed(0)).to(x.device)
        x_hat = model.decode(mu + eps * torch.exp(0.5 * logvar))
    loss = compute_elbo(x, x_hat, mu, logvar, beta=1.0)["loss"] * SCALE
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = {
        f"gradient of {name}": weight.grad
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }
    return {"mu": mu, "logvar": logvar, "x_hat": x_hat, "loss": loss} | gradients


def _first_wrong_module(
    reference: VAE, candidate: VAE, x: Tensor, device: torch.device, dtype: torch.dtype
) -> str:
    """The innermost module whose output is the first to differ, in words; nothing if none does."""
    expected = _outputs(reference, x.to("cpu"), torch.float32)
    found = _outputs(candidate, x.to(device), dtype)
    for name, output in expected.items():
        if not relative_difference(found[name], output) <= TOLERANCE[dtype].output:
            kind = type(reference.get_submodule(name)).__name__
            return f"; the first module to differ is {name} ({kind})"
    return "; every module's output agrees, so it is a backward pass"


def _outputs(model: VAE, x: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """Innermost module → its output, in the order of computation."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        # A copy: an activation may work in place on what it is given.
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            outputs[name] = output.detach().to("cpu", copy=True)

        return hook

    innermost = [(n, m) for n, m in model.named_modules() if not list(m.children())]
    handles = [module.register_forward_hook(keep(name)) for name, module in innermost]
    with torch.no_grad(), _autocast(x, dtype):
        mu, _ = model.encode(x)
        model.decode(mu)
    for handle in handles:
        handle.remove()
    return outputs


class ParityCheck(Callback):
    """``check_parity`` on the first batch of a run, before anything is learned from it."""

    def __init__(self) -> None:
        self._done = False

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Check once, in the run's precision."""
        if not self._done:
            model = pl_module.model
            assert isinstance(model, VAE)
            check_parity(
                model, batch["image"], pl_module.device, PRECISIONS[str(trainer.precision)]
            )
            self._done = True

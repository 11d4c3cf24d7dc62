"""Check a model against the contract."""

from __future__ import annotations

import copy
import io
from typing import Any

import torch
from torch import Tensor, nn

from vaelab.testing.promises import promise

FIRST = ("x_hat", "mu", "logvar")
ROUNDING = 1e-4  # relative to the norm; convolutions round differently in other batches


def check_model(model: nn.Module, x: Tensor) -> None:
    """Check a model against the contract of ``vaelab.models.vae``.

    Args:
        model: the network; not changed.
        x: a batch of three or more different samples, (B, C, ...), float32, on the CPU.

    Raises:
        BrokenPromise: naming the promise.
    """
    assert len(x) >= 3, "three samples are needed, to see whether they are independent"
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model = copy.deepcopy(model)
    z_dim = getattr(model, "z_dim", "no such attribute")
    promise(z_dim in range(1, 2**31), "z_dim is the number of latent units", z_dim)
    _check_output(model.eval(), x)
    _check_evaluation(model.eval(), x)
    _check_training(model.train(), x)
    _check_autocast(model.train(), x)
    _check_weights(model, before)


def _check_output(model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        output = model(x)
    names = getattr(output, "_fields", ())
    promise(names[:3] == FIRST, "forward returns a NamedTuple that begins with x_hat, mu, logvar",
            f"{type(output).__name__}{tuple(names)}")  # fmt: skip
    promise(output.x_hat.shape == x.shape, "x_hat is shaped like x",
            f"{tuple(output.x_hat.shape)} for {tuple(x.shape)}")  # fmt: skip
    for name in ("mu", "logvar"):
        part: Tensor = getattr(output, name)
        shape = (len(x), model.z_dim)
        promise(part.shape == shape, f"{name} is (B, z_dim)", f"{tuple(part.shape)}, not {shape}")
        promise(part.dtype == torch.float32, f"{name} is float32", part.dtype)
    for name, part in output._asdict().items():
        if isinstance(part, Tensor):
            promise(part.isfinite().all(), f"{name} is finite for standard-normal images")


def _check_evaluation(model: Any, x: Tensor) -> None:
    with torch.no_grad():
        output, again = model(x), model(x)
        mu, logvar = model.encode(x)
        decoded = model.decode(mu)
        alone = model(x[:1])
    promise(torch.equal(output.x_hat, again.x_hat), "evaluation is deterministic (z = mu)")
    promise(_close(mu, output.mu) and _close(logvar, output.logvar),
            "encode(x) gives the mu and logvar of forward")  # fmt: skip
    promise(_close(decoded, output.x_hat), "in evaluation x_hat is decode(mu)")
    promise(_close(alone.mu, output.mu[:1]) and _close(alone.x_hat, output.x_hat[:1]),
            "in evaluation a sample does not depend on the others of its batch")  # fmt: skip


def _check_training(model: Any, x: Tensor) -> None:
    torch.manual_seed(0)
    first = model(x)
    second = model(x)
    torch.manual_seed(0)
    again = model(x)
    promise(not torch.equal(first.x_hat, second.x_hat), "training samples z")
    promise(_close(again.x_hat, first.x_hat), "samples of z depend on torch's global seed")
    model.zero_grad()
    sum(part.float().square().sum() for part in first[:3]).backward()
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    idle = [name for name, weight in trained if weight.grad is None or not weight.grad.any()]
    promise(not idle, "every weight that is trained has a gradient", ", ".join(idle))


def _check_autocast(model: Any, x: Tensor) -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = model(x)
    for name in ("mu", "logvar"):
        part: Tensor = getattr(output, name)
        promise(part.dtype == torch.float32, f"{name} is float32 under autocast", part.dtype)


def _check_weights(model: nn.Module, before: dict[str, Tensor]) -> None:
    buffer = io.BytesIO()
    torch.save(before, buffer)
    buffer.seek(0)
    try:
        state = torch.load(buffer, weights_only=True)
    except Exception as error:
        promise(False, "the state dict is data alone (weights_only=True)", error)
    model.load_state_dict(state)
    same = all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    promise(same, "load_state_dict restores the whole state")


def _close(actual: Tensor, expected: Tensor) -> bool:
    actual, expected = actual.double(), expected.double()
    return bool((actual - expected).norm() <= ROUNDING * expected.norm().clamp(min=1e-12))

"""Check an objective against the contract."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vaelab.errors import UserError
from vaelab.objective.contract import REQUIRED, Objective, Step, evaluate
from vaelab.testing.promises import promise

ROUNDING = 1e-4


def check_objective(objective: Objective, batch: Mapping[str, Any], output: Any) -> None:
    """Check an objective against the contract of ``vaelab.objective.contract``.

    Args:
        objective: not changed.
        batch: as a dataset gives it, two samples or more, on the CPU.
        output: of a model in training mode, for this batch.

    Raises:
        BrokenPromise: naming the promise.
    """
    objective = copy.deepcopy(objective)
    output = type(output)(*(part.detach().requires_grad_() for part in output))
    kept = {key: value.clone() for key, value in batch.items() if isinstance(value, Tensor)}
    step = Step(beta=0.5, epoch=3, train_samples=10 * len(batch["image"]), stage="train")
    sums = _sums(objective, batch, output, step)
    for name, value in sums.items():
        promise(value.dtype == torch.float32, f"{name} is float32", value.dtype)
        promise(bool(value.isfinite()), f"{name} is finite")
    with torch.autocast("cpu", torch.bfloat16):
        mixed = _sums(objective, batch, output, step)
    for name in REQUIRED:
        dtype = mixed[name].dtype
        promise(dtype == torch.float32, f"{name} is float32 under autocast", dtype)
    again = _sums(objective, batch, output, step)
    promise(
        all(torch.equal(again[name], value) for name, value in sums.items()),
        "the same batch costs the same: an objective is not random",
    )
    same = all(torch.equal(batch[key], value) for key, value in kept.items())
    promise(same, "the batch is left as it is")
    _check_additive(objective, batch, output, step, sums)
    _check_gradients(objective, output, sums["loss"])
    with torch.no_grad():
        validated = _sums(objective, batch, output, step._replace(stage="val"))
    promise(
        validated.keys() == sums.keys(),
        "training and validation report the same entries",
        f"{list(sums)} and {list(validated)}",
    )


def _sums(
    objective: Objective, batch: Mapping[str, Any], output: Any, step: Step
) -> dict[str, Tensor]:
    try:
        return evaluate(objective, batch, output, step)
    except UserError as error:
        promise(False, "a dict of scalars with loss, recon and kl is returned", error)
        raise


def _check_additive(
    objective: Objective,
    batch: Mapping[str, Any],
    output: Any,
    step: Step,
    sums: Mapping[str, Tensor],
) -> None:
    """Recon and kl of a batch are the sums of those of its samples."""
    alone = []
    for place in range(len(batch["image"])):
        part = slice(place, place + 1)
        sample = {key: value[part] for key, value in batch.items()}
        alone.append(_sums(objective, sample, type(output)(*(o[part] for o in output)), step))
    for name in ("recon", "kl"):
        total = float(sum(sums_of_sample[name].detach().double() for sums_of_sample in alone))
        whole = float(sums[name].detach())
        promise(
            abs(total - whole) <= ROUNDING * max(abs(total), 1e-12),
            f"{name} is a sum over samples, not a mean",
            f"{whole:.6g} for the batch, {total:.6g} for its samples together",
        )


def _check_gradients(objective: Objective, output: Any, loss: Tensor) -> None:
    promise(loss.requires_grad, "the loss has a gradient with respect to the output")
    loss.backward()  # type: ignore[no-untyped-call]
    reached = [
        name for name, part in output._asdict().items()
        if part.grad is not None and bool(part.grad.abs().sum() > 0)
    ]  # fmt: skip
    for name in ("x_hat", "mu"):
        promise(name in reached, f"the loss depends on {name}", f"gradients of {reached}")
    if isinstance(objective, nn.Module):
        idle = [name for name, weight in objective.named_parameters() if weight.grad is None]
        promise(not idle, "every weight of the objective has a gradient", ", ".join(idle))

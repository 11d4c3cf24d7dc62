"""Check an optimiser against the contract."""

from __future__ import annotations

import torch
from torch import nn

from vaelab.testing.promises import promise
from vaelab.training.optimizer import OptimizerFactory


def check_optimizer(factory: OptimizerFactory, epochs: int = 3) -> None:
    """Check an optimiser against the contract of ``vaelab.training.optimizer``.

    Raises:
        BrokenPromise: naming the promise.
    """
    weight = nn.Parameter(torch.ones(3))
    optimizer, schedule = factory(iter([weight]), epochs)  # an iterator can be read only once
    groups = optimizer.param_groups
    promise(
        any(parameter is weight for group in groups for parameter in group["params"]),
        "all parameters that are passed in are optimised",
    )
    rates = []
    for _ in range(epochs):
        rates.append(groups[0]["lr"])
        optimizer.zero_grad()
        weight.square().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if schedule is not None:
            schedule.step()
    promise(bool((weight < 1).all()), "a step goes down the gradient", weight.tolist())
    promise(all(rate >= 0 for rate in rates), "the learning rate is not negative", rates)
    state = optimizer.state_dict()
    factory(iter([weight]), epochs).optimizer.load_state_dict(state)

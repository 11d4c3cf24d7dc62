"""The promises of an optimiser."""

from __future__ import annotations

import torch
from torch import nn

from vaelab.testing.promises import promise
from vaelab.training.optimizer import OptimizerFactory


def check_optimizer(factory: OptimizerFactory, epochs: int = 3) -> None:
    """Hold an optimiser to the contract of ``vaelab.training.optimizer``.

    Raises:
        BrokenPromise: naming the promise.
    """
    weight = nn.Parameter(torch.ones(3))
    made = factory(iter([weight]), epochs)  # an iterator: it may be passed over once
    groups = made.optimizer.param_groups
    promise(
        any(held is weight for group in groups for held in group["params"]),
        "all parameters that are handed in are optimised",
    )
    rates = []
    for _ in range(epochs):
        rates.append(groups[0]["lr"])
        made.optimizer.zero_grad()
        weight.square().sum().backward()  # type: ignore[no-untyped-call]
        made.optimizer.step()
        if made.schedule is not None:
            made.schedule.step()
    promise(bool((weight < 1).all()), "a step goes down the gradient", weight.tolist())
    promise(all(rate >= 0 for rate in rates), "the learning rate is not negative", rates)
    state = made.optimizer.state_dict()
    factory(iter([weight]), epochs).optimizer.load_state_dict(state)

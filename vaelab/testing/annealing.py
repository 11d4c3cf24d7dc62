"""Check a schedule of beta against the contract."""

from __future__ import annotations

import math

from vaelab.objective.annealing import Annealing
from vaelab.testing.promises import promise


def check_annealing(annealing: Annealing, epochs: int = 200) -> None:
    """Check a schedule against the contract of ``vaelab.objective.annealing``.

    Args:
        annealing: the schedule.
        epochs: number of epochs to check, extended beyond ``ramp_epochs``.

    Raises:
        BrokenPromise: naming the promise.
    """
    target, ramp = annealing.target, annealing.ramp_epochs
    promise(0 <= target < math.inf, "target is finite and not negative", target)
    promise(isinstance(ramp, int) and ramp >= 0, "ramp_epochs is a number of epochs", ramp)
    betas = [annealing(epoch) for epoch in range(max(epochs, ramp + 2))]
    again = [annealing(epoch) for epoch in reversed(range(len(betas)))]
    promise(
        betas == again[::-1],
        "beta is a function of the epoch alone: a resumed run begins at any epoch",
    )
    wrong = [epoch for epoch, beta in enumerate(betas) if not 0 <= beta < math.inf]
    promise(not wrong, "beta is finite and not negative", f"epochs {wrong[:5]}")
    late = [epoch for epoch, beta in enumerate(betas) if epoch >= ramp and beta != target]
    promise(not late, "from ramp_epochs on beta is the target", f"epochs {late[:5]}")

"""Schedules of beta, the weight of the KL: pure functions of the epoch, as small objects.

A schedule is any object with a ``target`` (the beta that the run is after) and a call
``schedule(epoch) -> beta``; epochs count from 0. To add one, write a dataclass like these
and a file in ``conf/annealing``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from vaelab.errors import UserError


class Annealing(Protocol):
    """What a schedule offers to the training step."""

    @property
    def target(self) -> float:
        """The beta at which epochs are compared; the value after any ramp."""
        ...

    @property
    def ramp_epochs(self) -> int:
        """First epoch at which ``target`` is reached."""
        ...

    def __call__(self, epoch: int) -> float:
        """Beta of one epoch."""
        ...


_BARS = "▁▂▃▄▅▆▇█"


def sparkline(schedule: Annealing, num_epochs: int) -> str:
    """Beta of epochs 0 to ``num_epochs`` − 1 as text, one bar each, the highest at ``target``."""
    top = len(_BARS) - 1
    shares = [
        schedule(epoch) / schedule.target if schedule.target else 0.0 for epoch in range(num_epochs)
    ]
    return "".join(_BARS[round(top * share)] for share in shares)


def _check(kl_beta: float, kl_annealing_epochs: int) -> None:
    if not 0 <= kl_beta < math.inf:
        raise UserError(f"train.kl_beta={kl_beta}: beta must be finite and not negative; try 1.0")
    if kl_annealing_epochs < 0:
        raise UserError(
            f"train.kl_annealing_epochs={kl_annealing_epochs}: a ramp cannot have a negative "
            "length; 0 means no ramp"
        )


@dataclass(frozen=True)
class Constant:
    """The same beta in every epoch (Higgins et al. 2017)."""

    kl_beta: float

    def __post_init__(self) -> None:
        _check(self.kl_beta, 0)

    @property
    def target(self) -> float:
        """Beta itself."""
        return self.kl_beta

    @property
    def ramp_epochs(self) -> int:
        """No ramp."""
        return 0

    def __call__(self, epoch: int) -> float:
        """Beta of one epoch."""
        return self.kl_beta


@dataclass(frozen=True)
class Linear:
    """0 at epoch 0, linear to ``kl_beta`` at ``kl_annealing_epochs``, then constant.

    Bowman et al. 2016 (arXiv:1511.06349), section 3.1, with a straight ramp.
    """

    kl_beta: float
    kl_annealing_epochs: int

    def __post_init__(self) -> None:
        _check(self.kl_beta, self.kl_annealing_epochs)

    @property
    def target(self) -> float:
        """Beta after the ramp."""
        return self.kl_beta

    @property
    def ramp_epochs(self) -> int:
        """Length of the ramp."""
        return self.kl_annealing_epochs

    def __call__(self, epoch: int) -> float:
        """Beta of one epoch."""
        if epoch >= self.kl_annealing_epochs:
            return self.kl_beta
        return self.kl_beta * epoch / self.kl_annealing_epochs


@dataclass(frozen=True)
class Cyclical:
    """Ramp, hold, drop to 0, and again: ``cycles`` times, then constant.

    Fu et al. 2019 (arXiv:1903.10145), equations 6 and 7, epoch by epoch. Each cycle is
    ``kl_annealing_epochs / ratio`` epochs long and its first ``kl_annealing_epochs`` ramp
    linearly from 0 to ``kl_beta``; the paper's R is ``ratio``, its M is ``cycles``, and its T,
    the whole of training, is ``cycles`` cycles. Longer training stays at ``kl_beta``.
    """

    kl_beta: float
    kl_annealing_epochs: int
    cycles: int = 4
    ratio: float = 0.5

    def __post_init__(self) -> None:
        _check(self.kl_beta, self.kl_annealing_epochs)
        if self.cycles < 1:
            raise UserError(f"annealing.cycles={self.cycles}: at least 1 is needed; try 4")
        if not 0 < self.ratio <= 1:
            raise UserError(f"annealing.ratio={self.ratio}: must lie in (0, 1]; try 0.5")

    @property
    def cycle_epochs(self) -> int:
        """Length of one cycle."""
        return round(self.kl_annealing_epochs / self.ratio)

    @property
    def target(self) -> float:
        """Beta at the top of each cycle and after the last."""
        return self.kl_beta

    @property
    def ramp_epochs(self) -> int:
        """First epoch from which beta stays at its target."""
        return (self.cycles - 1) * self.cycle_epochs + self.kl_annealing_epochs

    def __call__(self, epoch: int) -> float:
        """Beta of one epoch."""
        if epoch >= self.ramp_epochs:
            return self.kl_beta
        position = epoch % self.cycle_epochs
        return self.kl_beta * min(1.0, position / self.kl_annealing_epochs)

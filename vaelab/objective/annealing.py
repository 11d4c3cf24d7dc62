"""Schedules of beta, the weight of the KL: small immutable objects, called with the epoch.

Epochs count from 0::

    >>> schedule = Linear(kl_beta=4.0, kl_annealing_epochs=40)
    >>> [schedule(epoch) for epoch in (0, 20, 40, 199)]
    [0.0, 2.0, 4.0, 4.0]

To add a schedule, write a dataclass with the attributes of ``Annealing`` and a file in
``conf/annealing``; ``vaelab.testing.check_annealing`` tests it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from vaelab.errors import UserError


class Annealing(Protocol):
    """A schedule of beta."""

    @property
    def target(self) -> float:
        """Beta after any ramp. Epochs are compared at this beta."""
        ...

    @property
    def ramp_epochs(self) -> int:
        """First epoch from which beta stays at ``target``."""
        ...

    def __call__(self, epoch: int) -> float:
        """Beta of an epoch."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same beta in every epoch (Higgins et al. 2017).

    Compared with linear annealing over 10 of 40 epochs (2026-11-23; three seeds each on one split
    of 300 phantoms of 240 patients, 32³ at 6 mm, z_dim 32, base_filters 8, lr 1e-3): val/neg_elbo
    lower in each seed, by 1.4 % on average; neighbours shared between seeds 0.66 instead of 0.62
    beyond chance, aligned R² 0.92 for both; no seed collapsed. On 52 phantoms the two did not
    differ by more than their seeds do.

    Raises:
        UserError: for a beta that is negative or not finite.
    """

    kl_beta: float

    def __post_init__(self) -> None:
        if not 0 <= self.kl_beta < math.inf:
            raise UserError(
                f"train.kl_beta={self.kl_beta}: beta must be finite and not negative; try 1.0"
            )

    @property
    def target(self) -> float:
        """``kl_beta``."""
        return self.kl_beta

    @property
    def ramp_epochs(self) -> int:
        """First epoch from which beta stays at its target."""
        return 0

    def __call__(self, epoch: int) -> float:
        """Beta of an epoch."""
        return self.kl_beta


@dataclass(frozen=True)
class Linear(Constant):
    """0 at epoch 0, linear to ``kl_beta`` at ``kl_annealing_epochs``, then constant.

        beta(epoch) = kl_beta * min(1, epoch / kl_annealing_epochs)

    Bowman et al. 2016 (arXiv:1511.06349), section 3.1, with a straight ramp.

    Raises:
        UserError: also for a ramp of negative length.
    """

    kl_annealing_epochs: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kl_annealing_epochs < 0:
            raise UserError(
                f"train.kl_annealing_epochs={self.kl_annealing_epochs}: a ramp cannot have a "
                "negative length; 0 means no ramp"
            )

    @property
    def ramp_epochs(self) -> int:
        """First epoch from which beta stays at its target."""
        return self.kl_annealing_epochs

    def __call__(self, epoch: int) -> float:
        """Beta of an epoch."""
        if epoch >= self.kl_annealing_epochs:
            return self.kl_beta
        return self.kl_beta * epoch / self.kl_annealing_epochs


@dataclass(frozen=True)
class Cyclical(Linear):
    """Ramp, hold, drop to 0, and repeat: ``cycles`` times, then constant.

        beta(epoch) = kl_beta * min(1, (epoch mod cycle_epochs) / kl_annealing_epochs)
        cycle_epochs = kl_annealing_epochs / ratio

    Fu et al. 2019 (arXiv:1903.10145), equations 6 and 7, epoch by epoch. The paper's R is
    ``ratio``, its M is ``cycles``, and its T, the whole of training, is ``cycles`` cycles. Longer
    training stays at ``kl_beta``.

    Raises:
        UserError: also for no cycle, and for a ratio outside (0, 1].
    """

    cycles: int = 4
    ratio: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cycles < 1:
            raise UserError(f"annealing.cycles={self.cycles}: at least 1 is needed; try 4")
        if not 0 < self.ratio <= 1:
            raise UserError(f"annealing.ratio={self.ratio}: must lie in (0, 1]; try 0.5")

    @property
    def cycle_epochs(self) -> int:
        """Length of one cycle."""
        return round(self.kl_annealing_epochs / self.ratio)

    @property
    def ramp_epochs(self) -> int:
        """First epoch from which beta stays at its target: the end of the last ramp."""
        return (self.cycles - 1) * self.cycle_epochs + self.kl_annealing_epochs

    def __call__(self, epoch: int) -> float:
        """Beta of an epoch."""
        if epoch >= self.ramp_epochs:
            return self.kl_beta
        return self.kl_beta * min(1.0, epoch % self.cycle_epochs / self.kl_annealing_epochs)

"""Optimisers of the config: called with the parameters when training begins.

An optimiser is any callable ``(parameters, epochs) → Optimized``. To add one, write a dataclass
like ``AdamW`` and a file in ``conf/optimizer``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from vaelab.errors import UserError


class Optimized(NamedTuple):
    """An optimiser and the schedule of its learning rate."""

    optimizer: Optimizer
    schedule: LRScheduler | None = None
    """Stepped once at the end of each epoch."""


class OptimizerFactory(Protocol):
    """Constructs an optimiser once the parameters exist."""

    def __call__(self, parameters: Iterable[Parameter], epochs: int) -> Optimized:
        """An optimiser of these parameters, for this number of epochs."""
        ...


@dataclass(frozen=True)
class AdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), with a half-cosine schedule.

        lr(epoch) = lr * (lr_final + (1 - lr_final) * (1 + cos(pi * epoch / epochs)) / 2)

    The schedule is that of Loshchilov & Hutter 2017, equation 5, without restarts.

    Args:
        lr: learning rate.
        lr_final: share of ``lr`` at the end of a half-cosine over all epochs; 1 keeps ``lr``.
        weight_decay: decoupled; a step shrinks each weight by ``lr * weight_decay`` of itself.
        betas: decay of the running means of the gradient and of its square.

    Raises:
        UserError: for an impossible value.
    """

    lr: float
    lr_final: float = 1.0
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise UserError(f"train.lr={self.lr}: must be above 0 and finite; try 1e-4")
        if not 0 <= self.lr_final <= 1:
            raise UserError(f"train.lr_final={self.lr_final}: a share of train.lr, from 0 to 1")
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(
                f"optimizer.weight_decay={self.weight_decay}: cannot be negative; try 0.01"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(
                f"optimizer.betas={list(self.betas)}: each from 0 to below 1; try [0.9,0.999]"
            )

    def __call__(self, parameters: Iterable[Parameter], epochs: int) -> Optimized:
        """An optimiser, with a schedule where ``lr_final`` is not 1."""
        first, second = self.betas
        # One fused kernel: on two cores the plain loop took a quarter of a 3D step.
        optimizer = torch.optim.AdamW(
            parameters, self.lr, (first, second), weight_decay=self.weight_decay, fused=True
        )
        if self.lr_final == 1:
            return Optimized(optimizer)
        final = self.lr_final
        # Not CosineAnnealingLR: a run that is resumed for more epochs would restore the old number
        # of epochs, after which lr would rise again.
        return Optimized(
            optimizer,
            LambdaLR(
                optimizer,
                lambda epoch: final + (1 - final) * (1 + math.cos(math.pi * epoch / epochs)) / 2,
            ),
        )

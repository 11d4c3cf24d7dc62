"""The contract of an objective: the loss of a batch and of the model's output for it.

To add an objective, write a callable and a file in ``conf/objective``. An L1 reconstruction::

    def absolute_error(batch, output, step):
        recon = (batch["image"].float() - output.x_hat.float()).abs().sum()
        kl = kl_divergence(output.mu, output.logvar).sum()
        return {"loss": recon + step.beta * kl, "recon": recon, "kl": kl}

``vaelab.testing.check_objective`` tests it. Code that uses an objective calls ``evaluate``, which
checks the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

from torch import Tensor

from vaelab.errors import UserError

REQUIRED = ("loss", "recon", "kl")
"""Entries that every objective returns."""


class Step(NamedTuple):
    """The state of training at which an objective is evaluated."""

    beta: float
    """Weight of the KL in this epoch."""
    epoch: int
    """From 0."""
    train_samples: int
    """Training samples, over all processes: the N of minibatch-weighted estimators."""
    stage: Literal["train", "val"]


class Objective(Protocol):
    """A function, or an ``nn.Module`` whose weights are trained beside the model's."""

    def __call__(self, batch: Mapping[str, Any], output: Any, step: Step) -> dict[str, Tensor]:
        """The loss and its terms.

        Args:
            batch: a batch of the dataset; ``image`` (B, C, ...) is the model's input.
            output: of the model, a NamedTuple that begins with ``x_hat, mu, logvar``.
            step: the state of training.

        Returns:
            Scalars, each a sum over the batch in float32 whatever the autocast: ``loss``, which is
            minimised, ``recon`` and ``kl`` (nats); every further entry is logged as
            ``<stage>/<name>``.
        """
        ...


def evaluate(
    objective: Objective, batch: Mapping[str, Any], output: Any, step: Step
) -> dict[str, Tensor]:
    """``objective(batch, output, step)``, checked against the contract.

    Raises:
        UserError: naming the objective and the entry that is missing or no scalar.
    """
    sums = objective(batch, output, step)
    name = type(objective).__name__
    missing = [key for key in REQUIRED if key not in sums]
    if missing:
        raise UserError(
            f"objective: {name} gives {', '.join(sums) or 'nothing'}, but no {', '.join(missing)}; "
            "return a dict with loss, recon and kl"
        )
    for key, value in sums.items():
        if value.dim():
            raise UserError(
                f"objective: {key} of {name} has shape {tuple(value.shape)}; a scalar is needed, "
                "the sum over the batch"
            )
    return sums

"""The contract of an objective: what is minimised, given a batch and what a model says of it.

To add one, write a callable like ``vaelab.objective.elbo.ELBOLoss`` and a file in
``conf/objective``. Whoever uses an objective calls ``evaluate``, which holds it to the contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

from torch import Tensor

from vaelab.errors import UserError

REQUIRED = ("loss", "recon", "kl")
"""Entries that every objective gives."""


class Step(NamedTuple):
    """Where in training an objective is asked."""

    beta: float
    """Weight of the KL in this epoch."""
    epoch: int
    """From 0."""
    train_samples: int
    """Samples to learn from, over all processes: the N of minibatch-weighted estimators."""
    stage: Literal["train", "val"]


class Objective(Protocol):
    """A function, or an ``nn.Module`` whose weights are trained beside the model's."""

    def __call__(self, batch: Mapping[str, Any], output: Any, step: Step) -> dict[str, Tensor]:
        """What the batch costs.

        Args:
            batch: as the dataset gives it, ``image`` (B, C, ...) as the model saw it.
            output: of the model, a NamedTuple that begins with ``x_hat, mu, logvar``.
            step: where in training.

        Returns:
            Scalars, each a sum over the batch in float32 whatever the autocast: ``loss``, which is
            minimised, ``recon`` and ``kl`` (nats); every further entry is logged as
            ``<stage>/<name>``.
        """
        ...


def evaluate(
    objective: Objective, batch: Mapping[str, Any], output: Any, step: Step
) -> dict[str, Tensor]:
    """``objective(batch, output, step)``, held to the contract.

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

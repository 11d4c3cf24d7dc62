"""What the configured objective says of the judged samples, at the target beta."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from vaelab.anomaly.detector import Prediction
from vaelab.assembly import Run
from vaelab.objective.contract import Step, evaluate
from vaelab.training.checkpoint import load_checkpoint, objective_path

OWN = ("recon", "kl")
"""Entries that ``metrics.json`` has already, in units of their own."""


class ObjectiveEntries:
    """Entries of a run's objective, summed over samples.

    Args:
        run: with its data set up; the trained weights of its objective are loaded, if it has any.
    """

    def __init__(self, run: Run) -> None:
        self.objective = run.objective
        self.step = Step(run.annealing.target, 0, len(run.data.splits["train"]), "val")
        self.sums: dict[str, float] = defaultdict(float)
        if isinstance(self.objective, nn.Module):
            path = objective_path(run.weights)
            if path.is_file():
                state: Any = load_checkpoint(path)
                self.objective.load_state_dict(state)
            self.objective.eval().cpu()

    @torch.no_grad()
    def add(self, batch: Mapping[str, Any], prediction: Prediction) -> None:
        """Add a batch and what the model says of it, both on the CPU."""
        entries = evaluate(self.objective, batch, prediction.output, self.step)
        for name, value in entries.items():
            self.sums[name] += float(value)

    def result(self) -> dict[str, float]:
        """The loss, and the entries beside recon and kl, which have names of their own."""
        return {name: value for name, value in self.sums.items() if name not in OWN}

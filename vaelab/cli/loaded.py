"""A run that is there, as objects for a notebook; ``vaelab.runs.load`` hands it out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vaelab.assembly import Run
from vaelab.cli.run_config import RunConfig
from vaelab.data.module import SplitDataModule
from vaelab.errors import UserError
from vaelab.models.vae import VAE
from vaelab.runs.folder import RunFolder
from vaelab.runs.status import read_status
from vaelab.training.checkpoint import load_weights

PARTS = ("dataset", "model", "objective", "annealing", "hardware", "score", "train", "logging")
"""Those that a look at a run needs: no logger is opened, no optimiser made."""


@dataclass(frozen=True, repr=False)
class LoadedRun:
    """A trained run.

    Args:
        run: its folder and its parts, as a task is handed them.
        model: the best network, in evaluation mode on the CPU: ``model(x)`` → x_hat (B, C, ...),
            mu (B, z), logvar (B, z).
        data: its dataset, with the run's own split; ``data.setup("test")`` reads it.
        config: every value of ``config_resolved.yaml``.
        metrics: what ``task=evaluate`` measured; empty where it has not.
    """

    run: Run
    model: VAE
    data: SplitDataModule
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]

    @property
    def folder(self) -> RunFolder:
        """Where the run's files are."""
        return self.run.folder

    def __repr__(self) -> str:
        """Name, state, network and the first figures, a line each."""
        status = read_status(self.folder.path)
        weights = sum(weight.numel() for weight in self.model.parameters())
        lines = [
            f"Run {self.folder} ({status.state if status else 'of unknown state'})",
            f"  model    {type(self.model).__name__}, z_dim={self.model.z_dim}, "
            f"{weights / 1e6:.2f} M parameters",
            f"  data     {type(self.data).__name__}, {self.data.root_dir}",
            f"  metrics  {_headline(self.metrics)}",
        ]
        return "\n".join(lines)


def load_run(run_dir: str | os.PathLike[str]) -> LoadedRun:
    """A trained run, wherever its folder is now.

    Args:
        run_dir: a run folder.

    Raises:
        UserError: when there is no run, or one without trained weights, or one whose parts may not
            be built here (a package from outside needs ``VAELAB_ALLOWED_TARGETS``).
    """
    folder = RunFolder(Path(run_dir).expanduser())
    if not folder.is_run:
        raise UserError(f"{folder}: not a run folder, since it has no {folder.config.name}")
    config = RunConfig.load(folder.path)
    run = config.assemble(PARTS)
    if not run.weights.is_file():
        raise UserError(f"{run.weights}: no such file; has this run been trained?")
    values = OmegaConf.to_container(config.values, resolve=True)
    assert isinstance(values, dict)
    metrics = json.loads(folder.metrics.read_text("utf-8")) if folder.metrics.is_file() else {}
    model = load_weights(run.model, run.weights)
    return LoadedRun(run, model, run.data, {str(key): values[key] for key in values}, metrics)


def _headline(metrics: Mapping[str, Any]) -> str:
    if not metrics:
        return "none yet; task=evaluate measures them"
    facts = [f"mse {metrics['reconstruction']['mse']:.4g}"]
    detection = metrics.get("detection_all") or metrics.get("detection")
    if detection:
        facts.append(f"AUROC {detection['auroc']:.3f}")
    return f"{', '.join(facts)} on {metrics['samples']} samples, score {metrics['score']}"

"""What a task is handed, a run with its parts, and what a task declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from vaelab.anomaly.scores import Score
from vaelab.data.module import SplitDataModule
from vaelab.models.vae import VAE
from vaelab.objective.annealing import Annealing
from vaelab.objective.contract import Objective
from vaelab.runs.folder import RunFolder
from vaelab.training.hardware import Hardware
from vaelab.training.optimizer import OptimizerFactory
from vaelab.training.settings import LoggingSettings, TrainSettings

PARTS = (
    "train", "logging", "dataset", "model", "objective", "annealing", "optimizer", "callbacks",
    "hardware", "score", "logger",
)  # fmt: skip
"""Sections of the config that become objects."""


@dataclass(frozen=True)
class Run:
    """A run folder and the parts that work in it: those that the task has declared."""

    folder: RunFolder
    parts: Mapping[str, Any] = field(repr=False)
    """Name, one of ``PARTS`` → object."""
    map_sigma: float = 0.0
    """Smoothing of anomaly maps, in pixels or voxels."""
    resume: bool = False
    """Go on from the last checkpoint instead of starting anew."""
    shared: dict[type, Any] = field(default_factory=dict, repr=False, compare=False)
    """What one task hands on to those that run after it: class → its only object; see
    ``vaelab.evaluation.judge.judge_of``."""

    def _part(self, name: str) -> Any:
        assert name in self.parts, f"the task uses {name}, and has not declared it in its parts"
        return self.parts[name]

    def replacing(self, **parts: Any) -> Run:
        """The same run with other objects for some of its parts."""
        return Run(self.folder, {**self.parts, **parts}, self.map_sigma, self.resume)

    @property
    def data(self) -> SplitDataModule:
        """The dataset."""
        part: SplitDataModule = self._part("dataset")
        return part

    @property
    def model(self) -> VAE:
        """The network, untrained."""
        part: VAE = self._part("model")
        return part

    @property
    def objective(self) -> Objective:
        """What is minimised."""
        part: Objective = self._part("objective")
        return part

    @property
    def annealing(self) -> Annealing:
        """Beta as a function of the epoch."""
        part: Annealing = self._part("annealing")
        return part

    @property
    def optimizer(self) -> OptimizerFactory:
        """What makes the steps."""
        part: OptimizerFactory = self._part("optimizer")
        return part

    @property
    def callbacks(self) -> Sequence[Callback]:
        """Those that the user has added."""
        part: Sequence[Callback] = self._part("callbacks")
        return part

    @property
    def hardware(self) -> Hardware:
        """Where to compute, and how."""
        part: Hardware = self._part("hardware")
        return part

    @property
    def score(self) -> Score:
        """What makes a sample abnormal."""
        part: Score = self._part("score")
        return part

    @property
    def loggers(self) -> Sequence[Logger]:
        """Who is told the metrics of each epoch."""
        part: Sequence[Logger] = self._part("logger")
        return part

    @property
    def train(self) -> TrainSettings:
        """The section ``train`` of the config."""
        part: TrainSettings = self._part("train")
        return part

    @property
    def logging(self) -> LoggingSettings:
        """The section ``logging`` of the config."""
        part: LoggingSettings = self._part("logging")
        return part

    @property
    def weights(self) -> Path:
        """The best network of this run as a plain state dict."""
        return self.folder.weights(self.train.weights_name)


class Task:
    """What can be done with a run: a subclass has a file in ``conf/task`` and is called with it.

    What it declares is read before any part is built. Its defaults are those of a task that judges
    a trained run.
    """

    parts: ClassVar[Sequence[str]] = PARTS
    """Of ``PARTS``, those that are used. Only these are checked and built. A task that looks at no
    dataset has a run folder that is named after the task."""
    needs_trained_run: ClassVar[bool] = True
    """Works in the folder of a run that is there, with that run's own config. False: it makes a run
    folder of its own, and ``run_dir=`` may name a new one."""
    resumable: ClassVar[bool] = False
    """``resume=<folder>`` calls it again, with ``run.resume`` true. Only for a task that makes a
    run folder of its own."""

    def __call__(self, run: Run) -> Any:
        """Do it; a number that is returned is the value of the run, which sweeps compare."""
        raise NotImplementedError

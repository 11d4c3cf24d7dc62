"""The run that a task is called with, and the base class of tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

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


T = TypeVar("T")


class Part(Generic[T]):
    """Attribute of a ``Run``: the object that a section of the config became."""

    def __init__(self, section: str) -> None:
        self.section = section

    def __get__(self, run: Run, owner: type[Run]) -> T:
        assert self.section in run.parts, f"{self.section} is not in the parts of this task"
        part: T = run.parts[self.section]
        return part


@dataclass(frozen=True)
class Run:
    """A run folder and the parts that work in it: those that the task has declared.

    Every part is an attribute: ``run.model``, ``run.score``. A part that the task has not declared
    raises ``AssertionError``.
    """

    folder: RunFolder
    parts: Mapping[str, Any] = field(repr=False)
    """Name, one of ``PARTS`` → object."""
    map_sigma: float = 0.0
    """Smoothing of anomaly maps, in pixels or voxels."""
    resume: bool = False
    """Resume from the last checkpoint instead of starting a new training."""
    shared: dict[type, Any] = field(default_factory=dict, repr=False, compare=False)
    """Objects that later tasks of one command reuse: class → its only object; see
    ``vaelab.evaluation.judge.judge_of``."""

    data = Part[SplitDataModule]("dataset")
    model = Part[VAE]("model")  # untrained
    objective = Part[Objective]("objective")
    annealing = Part[Annealing]("annealing")
    optimizer = Part[OptimizerFactory]("optimizer")
    callbacks = Part[Sequence[Callback]]("callbacks")  # those that the user has added
    hardware = Part[Hardware]("hardware")
    score = Part[Score]("score")
    loggers = Part[Sequence[Logger]]("logger")
    train = Part[TrainSettings]("train")
    logging = Part[LoggingSettings]("logging")

    def replacing(self, **parts: Any) -> Run:
        """The same run with other objects for some of its parts."""
        return Run(self.folder, {**self.parts, **parts}, self.map_sigma, self.resume)

    @property
    def weights(self) -> Path:
        """The best network of this run as a plain state dict."""
        return self.folder.weights(self.train.weights_name)


class Task:
    """Base class of tasks. A subclass has a file in ``conf/task`` and is called with a ``Run``.

    Its class attributes are read before any part is built. The defaults fit a task that evaluates
    a trained run::

        class CountWeights(Task):
            parts = ("train", "model")

            def __call__(self, run: Run) -> int:
                return sum(weight.numel() for weight in run.model.parameters())
    """

    parts: ClassVar[Sequence[str]] = PARTS
    """The members of ``PARTS`` that the task uses; only these are checked and built. The run folder
    of a task without a dataset is named after the task."""
    needs_trained_run: ClassVar[bool] = True
    """True: the task works in the folder of an existing run, with that run's config. False: it
    makes its own run folder, and ``run_dir=`` may name a new one."""
    resumable: ClassVar[bool] = False
    """Whether ``resume=<folder>`` calls it again, with ``run.resume`` true. Only for a task that
    makes its own run folder."""

    def __call__(self, run: Run) -> Any:
        """Carry out the task. A number it returns is the value by which sweeps compare runs."""
        raise NotImplementedError

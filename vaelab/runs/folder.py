"""The names in a run folder: the only place that knows them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CONFIG = "config_resolved.yaml"
"""Every value of a run; what makes a folder a run folder."""


@dataclass(frozen=True)
class RunFolder:
    """Where things are in the folder of a run; nothing is read or made.

    >>> str(RunFolder(Path("outputs/a")).history)
    'outputs/a/logs/metrics.csv'
    """

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.name

    @property
    def config(self) -> Path:
        """Every value of the run."""
        return self.path / CONFIG

    @property
    def is_run(self) -> bool:
        """Whether a run has written its config here."""
        return self.config.is_file()

    @property
    def log(self) -> Path:
        """What the run has logged."""
        return self.path / "train.log"

    @property
    def status(self) -> Path:
        """How the run stands; see ``vaelab.runs.status``."""
        return self.path / "status.json"

    @property
    def lock(self) -> Path:
        """Held by the process that works in the folder."""
        return self.path / ".lock"

    @property
    def splits(self) -> Path:
        """A CSV file for each split."""
        return self.path / "splits"

    @property
    def cache(self) -> Path:
        """Preprocessed samples; may be deleted."""
        return self.path / "cache"

    @property
    def logs(self) -> Path:
        """What loggers write."""
        return self.path / "logs"

    @property
    def history(self) -> Path:
        """One row per epoch; see ``vaelab.runs.history``."""
        return self.logs / "metrics.csv"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints, and the best weights as a plain state dict."""
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """What the run goes on from."""
        return self.checkpoints / "last.ckpt"

    @property
    def snapshots(self) -> Path:
        """Pictures of reconstructions, a folder for each epoch."""
        return self.path / "recon"

    @property
    def metrics(self) -> Path:
        """What ``task=evaluate`` measured."""
        return self.path / "metrics.json"

    @property
    def scores(self) -> Path:
        """The anomaly score of each judged sample."""
        return self.path / "scores.csv"

    @property
    def calibration(self) -> Path:
        """Scores of held-out normal images, and which score of what weights gave them."""
        return self.path / "calibration.json"

    @property
    def local_calibration(self) -> Path:
        """The same of normal images from elsewhere, by ``task=calibrate``."""
        return self.path / "calibration_local.json"

    @property
    def heat_scale(self) -> Path:
        """Where heat maps are brightest, and of which weights and maps that holds."""
        return self.path / "heat_scale.json"

    @property
    def figures(self) -> Path:
        """Pictures of measurements."""
        return self.path / "figures"

    @property
    def report_card(self) -> Path:
        """The picture of ``task=report_card``."""
        return self.path / "report_card.png"

    @property
    def report(self) -> Path:
        """The page of ``task=report``."""
        return self.path / "report.html"

    @property
    def predictions(self) -> Path:
        """What ``task=predict`` writes, by default."""
        return self.path / "predictions"

    @property
    def latents(self) -> Path:
        """What ``task=encode`` writes of the run's own dataset."""
        return self.path / "latents"

    @property
    def latents_of_inputs(self) -> Path:
        """What ``task=encode`` writes of other inputs."""
        return self.path / "latents_inputs"

    @property
    def decoded(self) -> Path:
        """What ``task=decode`` writes."""
        return self.path / "decoded"

    @property
    def export(self) -> Path:
        """What ``task=export`` writes."""
        return self.path / "export"

    @property
    def model_card(self) -> Path:
        """The text of ``task=model_card``."""
        return self.path / "model_card.md"

    def weights(self, name: str) -> Path:
        """The best network as a plain state dict, by ``train.weights_name``."""
        return self.checkpoints / name

    def seed(self, seed: int) -> RunFolder:
        """The run that ``task=stability`` trains with another seed."""
        return RunFolder(self.path / "seeds" / f"seed_{seed}")

    def trial(self, number: int) -> RunFolder:
        """One run of ``task=search``."""
        return RunFolder(self.path / f"trial_{number}")

    def result(self, task: str, suffix: str) -> Path:
        """What a task writes under its own name: ``stability.json``, ``benchmark.png``."""
        return self.path / f"{task}.{suffix}"

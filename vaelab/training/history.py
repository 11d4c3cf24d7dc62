"""Lightning's CSV log, kept when a run goes on."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from vaelab.atomic import replacing


class _KeepingWriter(ExperimentWriter):
    """Appends to what is there. Lightning's own deletes it (pytorch-lightning#19446)."""

    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                self.metrics_keys = list(csv.DictReader(file).fieldnames or [])


class CSVHistory(CSVLogger):
    """``<folder>/metrics.csv``, one row for training and one for validation per epoch.

    Args:
        folder: usually ``<run>/logs``.
    """

    def __init__(self, folder: str | Path) -> None:
        path = Path(folder)
        super().__init__(
            save_dir=path.parent, name=path.name, version="", flush_logs_every_n_steps=1
        )

    @property
    def log_dir(self) -> str:
        """The folder itself, without Lightning's version folders: a run is one run."""
        return os.path.join(self.save_dir, self.name)

    @property
    def experiment(self) -> ExperimentWriter:
        """The writer, made on first use."""
        if self._experiment is None:
            os.makedirs(self.save_dir, exist_ok=True)
            self._experiment = _KeepingWriter(log_dir=self.log_dir)
        assert isinstance(self._experiment, ExperimentWriter)
        return self._experiment


def read_history(path: str | Path) -> dict[str, list[float]]:
    """Metric → value per epoch, with ``epoch`` itself; missing values are NaN.

    Args:
        path: of a ``metrics.csv``; the rows of one epoch are merged.
    """
    epochs: dict[int, dict[str, float]] = {}
    with Path(path).open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            values = {key: float(value) for key, value in row.items() if value}
            epochs.setdefault(int(values["epoch"]), {}).update(values)
    names = dict.fromkeys(name for values in epochs.values() for name in values)
    return {
        name: [epochs[epoch].get(name, float("nan")) for epoch in sorted(epochs)] for name in names
    }


def truncate_history(path: str | Path, first_epoch: int) -> None:
    """Drop the rows of ``first_epoch`` and later, which a resumed run will write again."""
    path = Path(path)
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or [])
        kept = [row for row in reader if int(row["epoch"]) < first_epoch]
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        writer.writeheader()
        writer.writerows(kept)

"""What a training run left in its folder, read without building any of its parts."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from vaelab.errors import UserError
from vaelab.runs.folder import RunFolder
from vaelab.runs.history import read_history
from vaelab.runs.overrides import overrides
from vaelab.runs.status import Status, read_status

TRAIN = "vaelab.tasks.train.Train"
UNFINISHED = "unfinished"
"""State of a run that never said how it ended."""


@dataclass(frozen=True)
class TrainingRun:
    """One run.

    Args:
        path: its folder.
        config: ``config_resolved.yaml``; empty when the run failed before it had one.
        state: "done", or why it is not: "running", "failed", "interrupted", "unfinished".
        error: why it failed, or "".
        history: metric → value per epoch, from ``logs/metrics.csv``; may be empty.
        val_ids: samples of the validation split, in its order.
    """

    path: Path
    config: Mapping[str, Any]
    state: str
    error: str
    history: Mapping[str, Sequence[float]]
    val_ids: tuple[str, ...]


def read_config(folder: RunFolder) -> dict[str, Any]:
    """Every value of a run."""
    config: dict[str, Any] = yaml.safe_load(folder.config.read_text("utf-8"))
    return config


def search_path(folder: RunFolder) -> list[str]:
    """The argument that has Hydra look where a run's options came from beside vaelab's own."""
    dirs = read_config(folder).get("config_dirs") if folder.is_run else None
    return overrides({"hydra.searchpath": dirs}) if dirs else []


def run_folders(folders: Sequence[str], is_run: Callable[[Path], bool], kind: str) -> list[Path]:
    """The run folders among ``folders``, each once: the folder itself, or those directly in it.

    Args:
        folders: run folders, and folders that hold run folders, such as a sweep's.
        is_run: what counts.
        kind: what that is, for the message.

    Raises:
        UserError: for a folder that is neither.
    """
    by_place: dict[Path, Path] = {}
    for folder in folders:
        path = Path(folder).expanduser()
        if not path.is_dir():
            raise UserError(f"task.runs={folder}: there is no such folder")
        inside = sorted((child for child in path.iterdir() if child.is_dir()), key=_natural)
        runs = [path] if is_run(path) else [child for child in inside if is_run(child)]
        if not runs:
            raise UserError(
                f"task.runs={folder}: neither {kind} nor a folder of such; "
                "runs are in outputs/, sweeps in multirun_sweeps/"
            )
        for run in runs:
            by_place.setdefault(run.resolve(), run)
    return list(by_place.values())


def read_runs(folders: Sequence[str]) -> list[TrainingRun]:
    """The training runs in ``folders``, each once.

    Args:
        folders: run folders, and folders that hold run folders, such as a sweep's.

    Raises:
        UserError: for a folder that is neither.
    """
    runs: dict[Path, TrainingRun] = {}

    def is_training(path: Path) -> bool:
        run = _read_run(path)
        if run is not None:
            runs[path] = run
        return run is not None

    return [runs[path] for path in run_folders(folders, is_training, "a training run")]


def names_of(runs: Sequence[TrainingRun]) -> list[str]:
    """A short name for each: its path below the folder that all have in common."""
    paths = [run.path.resolve() for run in runs]
    common = os.path.commonpath([path.parent for path in paths])
    return [os.path.relpath(path, common) for path in paths]


def _read_run(path: Path) -> TrainingRun | None:
    """None where there is no run, or one of another task than training."""
    config: dict[str, Any] = {}
    if RunFolder(path).is_run:
        config = read_config(RunFolder(path))
        if config["task"]["_target_"] != TRAIN:
            return None
    elif read_status(path) is None:
        return None
    status = read_status(path) or Status(UNFINISHED)
    return TrainingRun(
        path=path,
        config=config,
        state=status.state,
        error=status.error,
        history=_history(RunFolder(path).history),
        val_ids=_ids(RunFolder(path).splits / "val.csv"),
    )


def _history(path: Path) -> dict[str, list[float]]:
    if not path.is_file():
        return {}
    try:
        return read_history(path)
    except (KeyError, ValueError):  # a run that was killed may end in half a row
        return {}


def _ids(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    with path.open(newline="", encoding="utf-8") as file:
        return tuple(row["id"] for row in csv.DictReader(file))


def _natural(path: Path) -> list[tuple[bool, float | str]]:
    """Sort key that has 2 before 10, and 0.03 before 0.3."""
    parts = re.split(r"(\d+(?:\.\d+)?)", path.name)
    return [(place % 2 == 0, float(p) if place % 2 else p) for place, p in enumerate(parts)]

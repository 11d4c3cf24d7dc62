"""How the jobs of a sweep end, and the table of it.

Jobs may run in other processes and on other machines (see Hydra's launchers). Hence what they
report lies in files: ``<sweep>/.attempts/<attempt>/<job>.json``.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from vaelab.atomic import replacing, write_json
from vaelab.errors import EXIT_INTERRUPTED

log = logging.getLogger(__name__)

TABLE = "sweep.csv"
STOPPED = "stopped"
"""Beside the outcomes of jobs: the user has stopped the sweep."""
KEYBOARD_INTERRUPT = 130
"""128 + SIGINT, as a shell would say it."""


@dataclass(frozen=True)
class Outcome:
    """How one job of one attempt ended.

    Args:
        state: "running", "done", "skipped", "failed", "refused", "interrupted" or "not run".
        value: what the job returned.
        error: why, if it did not.
        code: exit status that the job alone would have had.
    """

    state: str
    value: float | None = None
    error: str = ""
    code: int = 0


@dataclass(frozen=True)
class Attempt:
    """One run of a sweep's command, as its jobs see it."""

    folder: Path
    id: str
    on_error: str

    @staticmethod
    def current() -> Attempt | None:
        """The attempt that the running job belongs to; None outside of a sweep."""
        hydra_config = HydraConfig.get()
        if hydra_config.mode != RunMode.MULTIRUN:
            return None
        callback = hydra_config.callbacks["sweep"]
        return Attempt(Path(hydra_config.sweep.dir), callback.attempt, callback.on_error)

    @property
    def outcomes(self) -> Path:
        """Folder of one JSON file per job that has been reached."""
        return self.folder / ".attempts" / self.id

    def record(self, outcome: Outcome) -> None:
        """Tell the other jobs, and the table, about the running job."""
        hydra_config = HydraConfig.get()
        number = int(hydra_config.job.num)
        content = {
            **asdict(outcome),
            "job": number,
            "folder": hydra_config.runtime.output_dir,
            "varied": _varied(hydra_config.overrides.task, hydra_config.callbacks["sweep"].swept),
        }
        write_json(self.outcomes / f"{number}.json", content)

    def read(self) -> list[dict[str, Any]]:
        """What has been recorded so far, in the order of the jobs."""
        outcomes = [json.loads(path.read_text("utf-8")) for path in self.outcomes.glob("*.json")]
        return sorted(outcomes, key=lambda content: int(content["job"]))

    def stop(self) -> None:
        """Let no further job begin: the user has stopped the sweep, not a cluster one job of it."""
        self.outcomes.mkdir(parents=True, exist_ok=True)
        (self.outcomes / STOPPED).touch()

    def stopped(self) -> bool:
        """No further job is to begin.

        A job that was interrupted, by a time limit or because its place was needed, concerns itself
        alone: it finds its own outcome when it is queued again.
        """
        if (self.outcomes / STOPPED).exists():
            return True
        states = {content["state"] for content in self.read()}
        return self.on_error == "stop" and bool(states & {"failed", "refused"})


def _varied(overrides: Iterable[str], swept: Iterable[str]) -> dict[str, str]:
    keys = list(swept)
    pairs = (item.split("=", 1) for item in overrides if "=" in item)
    return {key: value for key, value in pairs if key in keys}


def conclude(attempt: Attempt) -> int:
    """Log the table of a sweep, and write ``sweep.csv``.

    Returns:
        The exit status: 130 or 75 when the sweep was interrupted, 1 when a job has failed or was
        cut off, 0 otherwise.
    """
    jobs = attempt.read()
    if not jobs:
        return 0
    for content in jobs:
        if content["state"] == "running":  # it should have said how it ended
            content |= {"state": "cut off", "error": "its process was ended", "code": 1}
    _write_table(attempt.folder / TABLE, jobs)
    keys = [key for key in _keys(jobs) if len({content["varied"].get(key) for content in jobs}) > 1]
    rows = [("job", "varied", "state", "value", "folder")]
    for content in jobs:
        varied = "  ".join(f"{key}={content['varied'].get(key, '')}" for key in keys)
        value = "" if content["value"] is None else f"{content['value']:.6g}"
        state, folder = str(content["state"]), os.path.relpath(content["folder"])
        rows.append((str(content["job"]), varied, state, value, folder))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = zip(row, widths, strict=True)
        log.info("%s", "  ".join(cell.ljust(width) for cell, width in cells).rstrip())
    for content, row in zip(jobs, rows[1:], strict=True):
        if content["error"]:
            log.error("job %s (%s) %s: %s", *row[:3], content["error"])
    shutil.rmtree(attempt.outcomes, ignore_errors=True)
    codes = {content["code"] for content in jobs}
    code = next((c for c in (KEYBOARD_INTERRUPT, EXIT_INTERRUPTED, 1) if c in codes), 0)
    if code:
        log.info("run the same command again: what is done is skipped, the rest goes on")
    return code


def _keys(jobs: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for content in jobs for key in content["varied"]))


def _write_table(path: Path, jobs: list[dict[str, Any]]) -> None:
    """One row per job; a column for each key that was varied."""
    keys = _keys(jobs)
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["job", *keys, "state", "value", "error", "folder"])
        for content in jobs:
            varied = [content["varied"].get(key, "") for key in keys]
            value = "" if content["value"] is None else repr(content["value"])
            folder = os.path.relpath(content["folder"], path.parent)
            row = [content["job"], *varied, content["state"], value, content["error"], folder]
            writer.writerow(row)

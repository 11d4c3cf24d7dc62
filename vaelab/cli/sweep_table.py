"""The outcomes of a sweep's jobs, and their table.

Jobs may run in other processes and on other machines (see Hydra's launchers). Their outcomes are
therefore files: ``<sweep>/.attempts/<attempt>/<job>.json``.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from vaelab.atomic import replacing, write_json
from vaelab.errors import EXIT_INTERRUPTED

log = logging.getLogger(__name__)

TABLE = "sweep.csv"
STOPPED = "stopped"
"""Name of a file beside the outcomes: the user has stopped the sweep."""
KEYBOARD_INTERRUPT = 130
"""Exit status of a shell after Ctrl-C, 128 + SIGINT."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Args:
        state: "running", "done", "skipped", "failed", "refused", "interrupted" or "not run".
        value: the number that its task returned.
        error: reason, if it did not end well.
        code: exit status that the run alone would have had.
    """

    state: str
    value: float | None = None
    error: str = ""
    code: int = 0


@dataclass(frozen=True)
class JobOutcome(Outcome):
    """How a job of a sweep ended, as in its JSON file."""

    job: int = 0
    folder: str = ""
    varied: Mapping[str, str] = field(default_factory=dict)
    """The overrides that distinguish this job from the others."""


@dataclass(frozen=True)
class Attempt:
    """An execution of a sweep's command."""

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
        """Folder of a JSON file per job that has begun."""
        return self.folder / ".attempts" / self.id

    def record(self, outcome: Outcome) -> None:
        """Write the outcome of the running job, for the other jobs and the table."""
        hydra_config = HydraConfig.get()
        swept = list(hydra_config.callbacks["sweep"].swept)
        pairs = [item.split("=", 1) for item in hydra_config.overrides.task if "=" in item]
        job = JobOutcome(
            **asdict(outcome),
            job=int(hydra_config.job.num),
            folder=hydra_config.runtime.output_dir,
            varied={key: value for key, value in pairs if key in swept},
        )
        write_json(self.outcomes / f"{job.job}.json", asdict(job))

    def read(self) -> list[JobOutcome]:
        """The outcomes so far, in the order of the jobs."""
        texts = [path.read_text("utf-8") for path in self.outcomes.glob("*.json")]
        return sorted((JobOutcome(**json.loads(text)) for text in texts), key=lambda job: job.job)

    def stop(self) -> None:
        """Let no further job begin, since the user has stopped the sweep."""
        self.outcomes.mkdir(parents=True, exist_ok=True)
        (self.outcomes / STOPPED).touch()

    def stopped(self) -> bool:
        """Whether no further job may begin.

        A job that a cluster interrupts, for a time limit or for another user, does not stop the
        others; it finds its own outcome when it is queued again.
        """
        if (self.outcomes / STOPPED).exists():
            return True
        states = {job.state for job in self.read()}
        return self.on_error == "stop" and bool(states & {"failed", "refused"})


def conclude(attempt: Attempt) -> int:
    """Log the table of a sweep, and write ``sweep.csv``.

    Returns:
        The exit status: 130 or 75 when the sweep was interrupted, 1 when a job has failed or its
        process was killed, 0 otherwise.
    """
    jobs = attempt.read()
    if not jobs:
        return 0
    jobs = [_killed(job) if job.state == "running" else job for job in jobs]
    keys = list(dict.fromkeys(key for job in jobs for key in job.varied))
    _write_table(attempt.folder / TABLE, jobs, keys)
    _log_table(jobs, [key for key in keys if len({job.varied.get(key) for job in jobs}) > 1])
    shutil.rmtree(attempt.outcomes, ignore_errors=True)
    codes = {job.code for job in jobs}
    code = next((c for c in (KEYBOARD_INTERRUPT, EXIT_INTERRUPTED, 1) if c in codes), 0)
    if code:
        log.info("run the same command again: what is done is skipped, the rest goes on")
    return code


def _killed(job: JobOutcome) -> JobOutcome:
    return replace(job, state="cut off", error="its process was ended", code=1)


def _log_table(jobs: Sequence[JobOutcome], keys: Sequence[str]) -> None:
    rows = [("job", "varied", "state", "value", "folder")]
    for job in jobs:
        varied = "  ".join(f"{key}={job.varied.get(key, '')}" for key in keys)
        value = "" if job.value is None else f"{job.value:.6g}"
        rows.append((str(job.job), varied, job.state, value, os.path.relpath(job.folder)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        log.info("%s", "  ".join(cell.ljust(width) for cell, width in cells).rstrip())
    for job, row in zip(jobs, rows[1:], strict=True):
        if job.error:
            log.error("job %s (%s) %s: %s", *row[:3], job.error)


def _write_table(path: Path, jobs: Sequence[JobOutcome], keys: Sequence[str]) -> None:
    """A row per job; a column for each key that was varied."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["job", *keys, "state", "value", "error", "folder"])
        for job in jobs:
            varied = [job.varied.get(key, "") for key in keys]
            value = "" if job.value is None else repr(job.value)
            folder = os.path.relpath(job.folder, path.parent)
            writer.writerow([job.job, *varied, job.state, value, job.error, folder])

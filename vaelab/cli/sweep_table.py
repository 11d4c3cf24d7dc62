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
from vaelab.cli.sweep_jobs import SweepJob, varied_values
from vaelab.errors import EXIT_INTERRUPTED, UserError
from vaelab.runs.queue import jobs_in_queue, submissions
from vaelab.runs.status import read_status

log = logging.getLogger(__name__)

TABLE = "sweep.csv"
STOPPED = "stopped"
"""Name of a file beside the outcomes: the user has stopped the sweep."""
UNDECIDED = ("queued", "running")
KEYBOARD_INTERRUPT = 130
"""Exit status of a shell after Ctrl-C, 128 + SIGINT."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Args:
        state: "queued", "running", "done", "skipped", "failed", "refused", "interrupted", "not run"
            or "cut off".
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
    on_cluster: bool = False
    """Jobs are queued on SLURM: they go on when the process that submitted them ends."""

    @staticmethod
    def current() -> Attempt | None:
        """The attempt that the running job belongs to; None outside of a sweep."""
        hydra_config = HydraConfig.get()
        if hydra_config.mode != RunMode.MULTIRUN:
            return None
        callback = hydra_config.callbacks["sweep"]
        return Attempt(
            Path(hydra_config.sweep.dir),
            callback.attempt,
            callback.on_error,
            on_slurm(hydra_config.launcher),
        )

    @property
    def outcomes(self) -> Path:
        """Folder of a JSON file per job that has begun."""
        return self.folder / ".attempts" / self.id

    def record(self, outcome: Outcome) -> None:
        """Write the outcome of the running job, for the other jobs and the table."""
        hydra_config = HydraConfig.get()
        folder = Path(hydra_config.runtime.output_dir)
        overrides, swept = hydra_config.overrides.task, hydra_config.callbacks["sweep"].swept
        job = SweepJob(
            int(hydra_config.job.num),
            tuple(overrides),
            folder,
            os.path.relpath(folder, hydra_config.sweep.dir),
            varied_values(overrides, swept),
        )
        self.write(job, outcome)

    def write(self, job: SweepJob, outcome: Outcome) -> None:
        """Write the outcome of a job, for the other jobs and the table."""
        content = JobOutcome(
            **asdict(outcome), job=job.number, folder=str(job.folder), varied=job.varied
        )
        write_json(self.outcomes / f"{job.number}.json", asdict(content))

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


def on_slurm(launcher: Mapping[str, object]) -> bool:
    """Whether a launcher, by its config, queues jobs on a SLURM cluster."""
    return str(launcher["_target_"]).endswith(".SlurmLauncher")


def conclude(attempt: Attempt) -> int:
    """Log the table of a sweep, and write ``sweep.csv``.

    Returns:
        The exit status: 130 or 75 when the sweep was interrupted or has jobs in the queue, 1 when a
        job has failed or its process was killed, 0 when all are done.
    """
    jobs = attempt.read()
    if not jobs:
        return 0
    jobs = _decided(attempt.folder, jobs)
    keys = list(dict.fromkeys(key for job in jobs for key in job.varied))
    _write_table(attempt.folder / TABLE, jobs, keys)
    _log_table(jobs, [key for key in keys if len({job.varied.get(key) for job in jobs}) > 1])
    waiting = [job for job in jobs if job.state in UNDECIDED]
    if not waiting:
        shutil.rmtree(attempt.outcomes, ignore_errors=True)
    codes = {job.code for job in jobs}
    code = next((c for c in (KEYBOARD_INTERRUPT, EXIT_INTERRUPTED, 1) if c in codes), 0)
    if waiting:
        names = " ".join(f"--name={name}" for name in submissions(attempt.folder))
        log.info(
            "left to SLURM: %d of %d jobs; scancel %s ends them", len(waiting), len(jobs), names
        )
        log.info("run the same command again to wait for them, with sweep.mode=show for the table")
    elif code:
        log.info("run the same command again: what is done is skipped, the rest goes on")
    return code


def _decided(sweep: Path, jobs: Sequence[JobOutcome]) -> list[JobOutcome]:
    """Outcomes, those of jobs that have recorded no end by their folders and SLURM's queue."""
    undecided = {os.path.relpath(job.folder, sweep) for job in jobs if job.state in UNDECIDED}
    try:
        in_queue = jobs_in_queue(sweep) if undecided else {}
    except UserError as error:
        log.error("%s", error)
        in_queue = dict.fromkeys(undecided, "queued")
    decided = []
    for job in jobs:
        if job.state in UNDECIDED:
            name = os.path.relpath(job.folder, sweep)
            outcome = _from_folder(Path(job.folder), in_queue.get(name))
            job = replace(job, **asdict(outcome))
        decided.append(job)
    return decided


def _from_folder(folder: Path, in_queue: str | None) -> Outcome:
    status = read_status(folder)
    if in_queue is not None and (status is None or status.state != "done"):
        return Outcome(in_queue, code=EXIT_INTERRUPTED)
    if status is None:
        return Outcome("not run", code=1)
    if status.state == "running":
        return Outcome("cut off", error="its process was ended", code=1)
    code = {"done": 0, "interrupted": EXIT_INTERRUPTED}.get(status.state, 1)
    return Outcome(status.state, status.value, status.error, code)


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

"""Jobs of a sweep on SLURM: each submitted once, waited for by the queue, requeued in order.

``hydra/launcher=submitit_slurm`` names hydra-submitit-launcher's class and its keys. While a sweep
begins, this one takes its place, for what that one does not do: it submits done jobs again, waits
for results that a cancelled job never writes, gives up all when one has none, and requeues a job
from inside a signal handler, whose exit may be swallowed.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, ClassVar

import submitit
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.hydra_submitit_launcher import submitit_launcher
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from omegaconf import OmegaConf

from vaelab.cli.sweep_jobs import SweepJob, planned
from vaelab.cli.sweep_table import Attempt, Outcome
from vaelab.errors import EXIT_INTERRUPTED, UserError
from vaelab.runs.queue import jobs_in_queue, note_submission
from vaelab.runs.status import locked, read_status

log = logging.getLogger(__name__)

POLL = 5.0  # seconds between two questions to SLURM
PATIENCE = 120.0  # seconds to wait for another process that submits jobs of the same sweep
REQUEUE_SIGNAL = getattr(signal, f"SIG{submitit.JobEnvironment.USR_SIG}")


class SlurmLauncher(submitit_launcher.SlurmLauncher):
    """Hydra's launcher, in the process that submits and in those of the jobs."""

    attempt: ClassVar[Attempt | None] = None
    """The sweep that this process submits jobs of."""
    waits: ClassVar[bool] = True
    """Whether this process waits for their end."""

    @classmethod
    def take_over(cls, attempt: Attempt, waits: bool) -> None:
        """Be what Hydra makes where a config names hydra-submitit-launcher's class."""
        cls.attempt, cls.waits = attempt, waits
        Plugins.instance().class_name_to_class[SUBMITIT] = cls

    # --- Where jobs are submitted -------------------------------------------------------------

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Submit what is neither done nor in the queue, and wait for all."""
        attempt = self.attempt
        assert attempt is not None
        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        jobs = planned(loader, self.config, job_overrides, initial_job_idx)
        with locked(attempt.folder, PATIENCE):
            waiting = jobs_in_queue(attempt.folder, forget=True)
            new = [job for job in jobs if job.name not in waiting and not _is_done(job)]
            for job in jobs:
                state = "skipped" if job.name not in waiting and _is_done(job) else "queued"
                attempt.write(job, Outcome(state, _value(job) if state == "skipped" else None))
            if new:
                self._submit(new, attempt)
        if self.waits:
            _wait(attempt.folder, {job.name for job in jobs})
        return [
            JobReturn(_return_value=_objective(job), status=JobStatus.COMPLETED) for job in jobs
        ]

    def _submit(self, jobs: Sequence[SweepJob], attempt: Attempt) -> None:
        """As the launcher of hydra-submitit-launcher does, under a name of the sweep's own."""
        shared = set(OmegaConf.structured(BaseQueueConf).keys())
        name = f"{self.params['name']}_{attempt.id}"
        executor = submitit.AutoExecutor(
            folder=self.params["submitit_folder"],
            cluster="slurm",
            slurm_max_num_timeout=self.params["max_num_timeout"],
        )
        executor.update_parameters(
            **{
                key if key in shared else f"slurm_{key}": value
                for key, value in {**self.params, "name": name}.items()
                if key not in ("submitit_folder", "max_num_timeout")
            }
        )
        note_submission(attempt.folder, name, [job.name for job in jobs])
        executor.map_array(
            self,
            [list(job.overrides) for job in jobs],
            ["hydra.sweep.dir"] * len(jobs),
            [job.number for job in jobs],
            [f"job_id_for_{job.number}" for job in jobs],
            [Singleton.get_state()] * len(jobs),
        )

    # --- Where a job runs ---------------------------------------------------------------------

    def __call__(
        self,
        sweep_overrides: list[str],
        job_dir_key: str,
        job_num: int,
        job_id: str,
        singleton_state: dict[type, Singleton],
    ) -> JobReturn:
        """Run a job, and put it back into the queue where it was stopped for that."""
        with Requeue():
            result: JobReturn = super().__call__(
                sweep_overrides, job_dir_key, job_num, job_id, singleton_state
            )
            return result


SUBMITIT = f"{submitit_launcher.__name__}.{submitit_launcher.SlurmLauncher.__name__}"


class Requeue:
    """Within this context a signal stops the job in order, and at its end the job is put back.

    SIGTERM does what it does in any run. So does submitit's own signal, which announces a time
    limit or a preemption; then what submitit does at that signal is done when the run has saved
    itself. A job that is done nevertheless is not put back.
    """

    def __init__(self) -> None:
        self.asked = False
        """Whether submitit's signal has come."""
        self._process = os.getpid()
        self._submitit: Any = None

    def __enter__(self) -> Requeue:
        signal.signal(signal.SIGTERM, self._end)
        self._submitit = signal.signal(REQUEUE_SIGNAL, self._stop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The job's work is over. SLURM stops what it puts back, which must not disturb that.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self.asked and error is not None:
            self._put_back()

    def _put_back(self) -> None:
        """Have submitit count the time limit, and ask SLURM; ends with ``SystemExit``."""
        _remove_partial()
        self._submitit(REQUEUE_SIGNAL, None)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        # Loader workers get it too, and inherit this handler: they go on until the batch is done.
        if os.getpid() == self._process and not self.asked:
            self.asked = True
            signal.raise_signal(signal.SIGTERM)

    def _end(self, number: int, frame: FrameType | None) -> None:
        """SIGTERM while no run has taken it over, as during imports, which catch exceptions."""
        if os.getpid() != self._process:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            if self.asked:
                self._put_back()
        finally:
            os._exit(EXIT_INTERRUPTED)


def _remove_partial() -> None:
    """Of a job that was killed while it was put back; submitit refuses to write beside it.

    The first of several tasks alone puts a job back, and may just be writing.
    """
    job = submitit.JobEnvironment()
    path: Path = job.paths.submitted_pickle
    if job.global_rank == 0:
        path.with_suffix(path.suffix + ".save_tmp").unlink(missing_ok=True)


# --- Until all have ended -------------------------------------------------------------------------


def _wait(sweep: Path, names: set[str]) -> None:
    """Until no job is in the queue; asked twice, for one that is just being put back."""
    absent = 0
    while absent < 2:
        time.sleep(POLL if absent == 0 else 1.0)
        try:
            absent = 0 if names & set(jobs_in_queue(sweep)) else absent + 1
        except UserError as error:  # the controller is away for a while
            log.warning("%s", error)


def _is_done(job: SweepJob) -> bool:
    status = read_status(job.folder)
    return status is not None and status.state == "done"


def _value(job: SweepJob) -> float | None:
    status = read_status(job.folder)
    return None if status is None else status.value


def _objective(job: SweepJob) -> float:
    value = _value(job) if _is_done(job) else None
    return float("nan") if value is None else value

"""A SLURM cluster of one node, a sweep on it, and what may happen to its jobs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vaelab.runs.launch import environment
from vaelab.runs.status import read_status

START = Path(__file__).parents[3] / "shared" / "slurm" / "one_node.sh"
LAUNCHER = (
    "-m", "hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=5",
    "hydra.launcher.max_num_timeout=50",  # at every such signal a job of 5 min has timed out
)  # fmt: skip


class Cluster:
    """Commands of SLURM."""

    def __init__(self, folder: Path) -> None:
        self.environment = environment() | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "OMP_NUM_THREADS": "1",
        }

    def ask(self, *command: str) -> str:
        """What a command prints; its failure is that of a job that has ended meanwhile."""
        ended = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        )
        return ended.stdout

    def jobs(self) -> dict[str, str]:
        """Ids and states of jobs that have not ended; one that was put back starts at once."""
        rows = self.ask("squeue", "--array", "--noheader", "--format=%i %T %r").splitlines()
        for row in rows:
            job, state, reason = row.split(maxsplit=2)
            if (state, reason) == ("PENDING", "BeginTime"):
                self.ask("scontrol", "update", f"JobId={job}", "StartTime=now")
        return {row.split()[0]: row.split()[1] for row in rows}

    def until_empty(self) -> None:
        wait_for(lambda: not self.jobs(), "the queue to be empty")

    def restarts(self, job: str) -> int:
        """How often a job was put back; 0 of one that is gone."""
        found = re.search(r"Restarts=(\d+)", self.ask("scontrol", "show", "job", job))
        return int(found[1]) if found else 0

    def time_limit(self, job: str) -> None:
        """What ``--signal`` does before the end: all processes of the job get the signal."""
        self.ask("scancel", "--signal=USR2", job)

    def requeue(self, job: str) -> None:
        self.ask("scontrol", "requeue", job)

    def cancel(self, job: str) -> None:
        self.ask("scancel", job)


@dataclass
class Sweep:
    """A sweep on the cluster, from a folder of its own."""

    cluster: Cluster
    place: Path
    arguments: Sequence[str]

    def start(self, *more: str) -> subprocess.Popen[str]:
        """Submit and wait, in a process of its own."""
        command = [sys.executable, "-m", "vaelab.run", *LAUNCHER, *self.arguments, *more]
        with (self.place / "said.txt").open("a") as output:
            return subprocess.Popen(
                command, cwd=self.place, env=self.cluster.environment, text=True,
                stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def __call__(self, *more: str) -> int:
        return self.wait(self.start(*more))

    def wait(self, submitter: subprocess.Popen[str]) -> int:
        """Until it ends; jobs that are put back start at once."""
        while submitter.poll() is None:
            self.cluster.jobs()
            time.sleep(0.5)
        return submitter.wait()

    @property
    def said(self) -> str:
        return (self.place / "said.txt").read_text()

    @property
    def folder(self) -> Path | None:
        found = [path for path in self.place.glob("multirun_sweeps/*") if path.is_dir()]
        return found[0] if found else None

    def runs(self) -> list[Path]:
        """Folders of the jobs that have begun."""
        return sorted(path.parent for path in self.place.glob("multirun_sweeps/*/*/status.json"))

    def states(self) -> list[str]:
        statuses = [read_status(run) for run in self.runs()]
        return [status.state if status else "" for status in statuses]

    def epochs(self, run: Path) -> int:
        """How many a job has logged."""
        log = run / "logs" / "metrics.csv"
        return max(0, len(log.read_text().splitlines()) - 1) if log.is_file() else 0

    def job_id(self, run: Path) -> str:
        """Of SLURM: the latest submission of this job."""
        notes = sorted(run.parent.glob(".submissions/*.json"), key=lambda p: p.stat().st_mtime)
        for note in reversed(notes):
            names = json.loads(note.read_text())["jobs"]
            if run.name in names:
                rows = self.cluster.ask(
                    "squeue", "--array", "--noheader", f"--name={note.stem}", "--format=%K %i"
                )
                indices = dict(row.split() for row in rows.splitlines())
                index = str(names.index(run.name))
                return str(indices.get(index, indices.get("N/A", "")))
        return ""

    def last_submitted(self) -> list[str]:
        """Names of the jobs of the latest submission."""
        notes = self.place.glob("multirun_sweeps/*/.submissions/*.json")
        latest = max(notes, key=lambda note: note.stat().st_mtime)
        return sorted(json.loads(latest.read_text())["jobs"])

    def kill(self, run: Path, number: int = signal.SIGKILL) -> None:
        """The process that works on a job, if one does."""
        status = read_status(run)
        if status is not None and status.state == "running":
            command = Path(f"/proc/{status.pid}/cmdline")
            if command.is_file() and b"submitit" in command.read_bytes():
                os.kill(status.pid, number)


def wait_for(condition: Callable[[], object], what: str, patience: float = 240.0) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.3)

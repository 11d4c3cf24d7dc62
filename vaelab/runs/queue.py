"""Which jobs of a sweep are in the queue of a SLURM cluster.

A submission is noted in the sweep's folder under a name of its own before SLURM hears of it, and
SLURM is asked by that name: so no job is lost sight of, whoever is killed, and accounting
(``sacct``) is not needed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from vaelab.atomic import write_json
from vaelab.errors import UserError

FOLDER = ".submissions"
TRIES = 3  # the controller may be busy, or just be started anew


def note_submission(sweep: Path, name: str, jobs: Sequence[str]) -> None:
    """Note which jobs are about to be submitted.

    Args:
        sweep: the sweep's folder.
        name: of the submission in SLURM; no other may have it.
        jobs: names of the jobs' folders, in the order of the array.
    """
    write_json(sweep / FOLDER / f"{name}.json", {"jobs": list(jobs)})


def submissions(sweep: Path) -> list[str]:
    """Names of the submissions that have been noted and may have jobs in the queue."""
    return sorted(path.stem for path in (sweep / FOLDER).glob("*.json"))


def jobs_in_queue(sweep: Path, forget: bool = False) -> dict[str, str]:
    """Names of job folders, and "queued" or "running" for each.

    Args:
        sweep: the sweep's folder.
        forget: delete the notes of submissions that have no job in the queue any more. Only for
            who holds the sweep's lock: another process may be about to submit.

    Raises:
        UserError: when SLURM does not answer.
    """
    if shutil.which("squeue") is None:
        return {}  # no cluster here
    found: dict[str, str] = {}
    for name in submissions(sweep):
        note = sweep / FOLDER / f"{name}.json"
        jobs = json.loads(note.read_text(encoding="utf-8"))["jobs"]
        states = _states(name)
        if forget and not states:
            note.unlink()
        found |= {jobs[index]: state for index, state in states.items() if index < len(jobs)}
    return found


def _states(name: str) -> dict[int, str]:
    """Index in the array, and state, of a submission's jobs that have not ended."""
    command = ["squeue", "--array", "--noheader", f"--name={name}", "--format=%K %T"]
    error = ""
    for _ in range(TRIES):
        asked = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if asked.returncode == 0:
            rows = [line.split() for line in asked.stdout.splitlines()]
            return {
                0 if index == "N/A" else int(index): _state(state) for index, state in rows
            }  # N/A: one job alone is no array
        error = asked.stderr.strip()
    raise UserError(f"squeue: {error}; the jobs stay where they are. Ask again when SLURM answers")


def _state(state: str) -> str:
    return "running" if state in ("RUNNING", "COMPLETING") else "queued"

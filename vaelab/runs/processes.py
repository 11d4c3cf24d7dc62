"""Several processes that train one run: who is who, and where they meet.

They are started by vaelab itself on one machine, or by torchrun or srun. One of them, of rank 0,
composes the config and owns the run folder; the others follow it there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep, time

from vaelab.atomic import replacing
from vaelab.errors import UserError
from vaelab.runs.folder import RunFolder

RANK, WORLD, FOLDER = "VAELAB_RANK", "VAELAB_WORLD_SIZE", "VAELAB_RANK_FOLDER"
"""Environment of a process that vaelab has started to train with others."""

MEETING_PLACE = Path("outputs") / ".launches"
STARTED = time()
"""When this process began: what was announced before is of an earlier launch. Launches by torchrun
with the same ``--rdzv-id`` and port have one name."""
PATIENCE = 1800.0  # seconds that rank 0 may take to compose the config, split the data and say so


@dataclass(frozen=True)
class Process:
    """One process among those that train together.

    Args:
        rank: from 0, over all machines.
        world_size: how many there are.
        launcher: who has started them: "vaelab", "torchrun", "srun", or "" for one process alone.
        launch: a name that these processes share, and no others.
    """

    rank: int = 0
    world_size: int = 1
    launcher: str = ""
    launch: str = ""


def this_process(environment: Mapping[str, str] | None = None) -> Process:
    """Who this process is, by the environment that its launcher has set.

    In an allocation of SLURM a process is one of several only if srun has started several:
    ``SLURM_NTASKS`` is set in the batch script, too.
    """
    env = os.environ if environment is None else environment
    if RANK in env:
        return Process(int(env[RANK]), int(env[WORLD]), "vaelab", env[FOLDER])
    if "TORCHELASTIC_RUN_ID" in env:
        start = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")
        return Process(int(env["RANK"]), int(env["WORLD_SIZE"]), "torchrun", _name(env, start))
    tasks = int(env.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks > 1 and "SLURM_PROCID" in env:
        step = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
        return Process(int(env["SLURM_PROCID"]), tasks, "srun", _name(env, step))
    return Process()


def _name(env: Mapping[str, str], keys: Sequence[str]) -> str:
    parts = "_".join(env.get(key, "0") for key in keys)
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in parts)


def _is_announced(path: Path) -> bool:
    return path.is_file() and path.stat().st_mtime >= STARTED


def announce(folder: RunFolder | None) -> None:
    """Tell the processes that follow this one where to train; None: there is nothing to do.

    The first call in a process counts.
    """
    process = this_process()
    path = MEETING_PLACE / process.launch
    if process.launcher in ("torchrun", "srun") and process.rank == 0 and not _is_announced(path):
        with replacing(path) as partial:
            path_of_run = None if folder is None else os.path.abspath(folder.path)
            partial.write_text(json.dumps({"folder": path_of_run}), encoding="utf-8")


def follow(process: Process, patience: float = PATIENCE) -> RunFolder | None:
    """Wait for what rank 0 announces.

    Raises:
        UserError: when it announces nothing.
    """
    path = MEETING_PLACE / process.launch
    deadline = monotonic() + patience
    while not _is_announced(path):
        if monotonic() > deadline:
            raise UserError(
                f"process {process.rank} of {process.world_size}: the first has not said where to "
                f"train, in {path.resolve()}; do all machines see this folder, and agree on the "
                "time?"
            )
        sleep(0.1)
    folder = json.loads(path.read_text(encoding="utf-8"))["folder"]
    return None if folder is None else RunFolder(Path(folder))

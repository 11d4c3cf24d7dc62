"""Train a run in several processes on this machine, and wait for their end.

A failing process ends all of them, with one message; the process that waits goes on alone with what
comes after training.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from json import loads
from pathlib import Path

from vaelab.atomic import write_json
from vaelab.errors import EXIT_INTERRUPTED, Interrupted, UserError
from vaelab.runs.folder import RunFolder
from vaelab.runs.launch import BEFORE_EXEC, environment
from vaelab.runs.processes import FOLDER, RANK, WORLD

PATIENCE = 20.0  # seconds to save itself, for a process that was asked to stop
FIRST_WORDS = 3.0  # seconds for those who fail together to say why


@dataclass(frozen=True)
class RankOutcome:
    """How one process ended.

    Args:
        state: "done", "interrupted" or "failed".
        value: best value of ``train.monitor``.
        error: why it failed.
        time: of its end, seconds since the epoch: the first to fail knows the reason.
    """

    state: str
    value: float | None = None
    error: str = ""
    time: float = 0.0


def outcome_path(folder: RunFolder, rank: int) -> Path:
    """Where a process says how it ended."""
    return folder.path / ".ranks" / f"{rank}.json"


def write_outcome(folder: RunFolder, rank: int, outcome: RankOutcome) -> None:
    """Say how this process ended."""
    write_json(outcome_path(folder, rank), asdict(outcome))


def train_in_processes(folder: RunFolder, count: int) -> float:
    """Train the run of a folder, whose config is saved there, in ``count`` processes.

    Returns:
        The best value of ``train.monitor``.

    Raises:
        Interrupted: when this process, or one of them, was asked to stop.
        UserError: when one of them fails, with its message.
    """
    shutil.rmtree(outcome_path(folder, 0).parent, ignore_errors=True)
    port = _free_port()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(count):  # a signal may come between two of them
            processes.append(_start(folder, rank, count, port))
        _wait(processes)
    finally:
        codes = [process.poll() for process in processes]
        _end(processes)
    outcomes = [_read(folder, rank) for rank in range(count)]
    shutil.rmtree(outcome_path(folder, 0).parent, ignore_errors=True)
    return _judge(codes, outcomes)


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Until all have ended, or one has not ended well and those who fail with it have said so."""
    running = list(processes)
    deadline = float("inf")
    while running and time.monotonic() < deadline:
        time.sleep(0.1)
        running = [process for process in running if process.poll() is None]
        if deadline == float("inf") and any(process.poll() for process in processes):
            deadline = time.monotonic() + FIRST_WORDS


def _judge(codes: Sequence[int | None], outcomes: Sequence[RankOutcome | None]) -> float:
    """The best value, or why there is none.

    Args:
        codes: exit statuses of those that ended by themselves, by rank.
        outcomes: what they said of it.
    """
    count = len(codes)
    silent = [
        rank
        for rank, (code, outcome) in enumerate(zip(codes, outcomes, strict=True))
        if code and code != EXIT_INTERRUPTED and outcome is None
    ]
    if silent:  # what the others say is that they have lost it
        raise UserError(
            f"process {silent[0]} of {count} ended with status {codes[silent[0]]} and said "
            "nothing; a negative one is the signal that ended it, -9 often a lack of memory"
        )
    failures = [outcome for outcome in outcomes if outcome and outcome.state == "failed"]
    if EXIT_INTERRUPTED in codes:
        raise Interrupted(f"process {codes.index(EXIT_INTERRUPTED)} of {count} was stopped")
    if failures:
        first = min(failures, key=lambda outcome: outcome.time)
        raise UserError(f"process {outcomes.index(first)} of {count}: {first.error}")
    assert outcomes[0] is not None
    assert outcomes[0].value is not None
    return outcomes[0].value


def _start(folder: RunFolder, rank: int, count: int, port: int) -> subprocess.Popen[bytes]:
    threads = max(1, (os.cpu_count() or 1) // count)
    own = {
        RANK: str(rank), WORLD: str(count), FOLDER: str(folder.path.resolve()),
        # As Lightning's and PyTorch's own launchers set them.
        "LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    return subprocess.Popen(  # our own command line, and no shell
        [sys.executable, "-m", "vaelab.run"],
        env={"OMP_NUM_THREADS": str(threads), **environment(), **own},
        preexec_fn=BEFORE_EXEC,
    )


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Have all of them stop: asked first, and killed where they hang in wait for another.

    They pass on a SIGTERM to this one, which has sent it.
    """
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    signal.signal(signal.SIGTERM, before)


def _read(folder: RunFolder, rank: int) -> RankOutcome | None:
    path = outcome_path(folder, rank)
    return RankOutcome(**loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port

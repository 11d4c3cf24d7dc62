"""``status.json``: how a run stands, so that nobody has to guess it from what it left behind."""

from __future__ import annotations

import json
import math
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from vaelab.atomic import write_json
from vaelab.errors import UserError
from vaelab.runs.folder import RunFolder

SWEEP = "sweep.yaml"
"""In the folder of a sweep, not of a run: the config that its jobs share."""


class Refused(UserError):  # noqa: N818  # named for what it says of the folder
    """A run folder was found in a state that forbids to work in it; it stays as it is."""


@dataclass(frozen=True)
class Status:
    """How a run stands.

    Args:
        state: "running", "done", "failed" or "interrupted". One that says "running" while no
            process holds the folder's lock has been cut off.
        value: what the run returned, usually the best value of ``train.monitor``.
        error: why it failed, or how to go on.
        started: when, in UTC.
        ended: when, in UTC.
        pid: process that works, or worked, on it.
        host: machine of that process.
    """

    state: str
    value: float | None = None
    error: str = ""
    started: str = ""
    ended: str = ""
    pid: int = 0
    host: str = ""


def now() -> str:
    """Time of day in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def as_number(value: Any) -> float | None:
    """``value`` if it is a finite number; JSON knows no other."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def read_status(run_dir: Path) -> Status | None:
    """The status of a run; None where there is none, or one that cannot be read."""
    try:
        content = json.loads(RunFolder(run_dir).status.read_text(encoding="utf-8"))
        return Status(
            **{key: content[key] for key in Status.__dataclass_fields__ if key in content}
        )
    except (OSError, ValueError, TypeError):
        return None


def begin(run_dir: Path) -> Status:
    """Write that a run has begun."""
    status = Status("running", started=now(), pid=os.getpid(), host=socket.gethostname())
    write_json(RunFolder(run_dir).status, asdict(status))
    return status


def end(run_dir: Path, state: str, value: Any = None, error: str = "") -> None:
    """Write how a run has ended."""
    begun = read_status(run_dir)
    status = Status(
        state,
        as_number(value),
        error,
        started=begun.started if begun else "",
        ended=now(),
        pid=os.getpid(),
        host=socket.gethostname(),
    )
    write_json(RunFolder(run_dir).status, asdict(status))


@contextmanager
def locked(run_dir: Path, patience: float = 2.0) -> Iterator[None]:
    """Keep a run folder to one process at a time; the lock ends with the process, however it ends.

    Args:
        run_dir: the run folder.
        patience: seconds to wait for a process that is about to end.

    Raises:
        Refused: while another process works there.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such lock
        yield
        return
    # A POSIX lock, unlike flock, is not inherited by loader processes, which may outlive a kill.
    with RunFolder(run_dir).lock.open("a") as file:
        deadline = monotonic() + patience
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError):
                if monotonic() > deadline:
                    status = read_status(run_dir) or Status("")
                    raise Refused(
                        f"{run_dir}: another process works in this folder (pid {status.pid} on "
                        f"{status.host}, since {status.started} UTC); wait for it, or end it"
                    ) from None
                sleep(0.1)
            except OSError:
                break  # a file system without locks
        yield

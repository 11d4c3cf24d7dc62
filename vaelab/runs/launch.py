"""Runs in subprocesses: what crashes, or runs out of memory, costs that run alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import vaelab
from vaelab.errors import EXIT_INTERRUPTED, Interrupted
from vaelab.runs.status import Status, read_status


def environment() -> dict[str, str]:
    """That of this process, in which Python finds this very package, whatever else is installed."""
    package = str(Path(vaelab.__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def leave_requeue_signal_to_parent() -> None:
    """In a process about to become another program: be deaf to what submitit sends before a limit.

    It reaches all processes of a job, and ends those that do not expect it. The one that submitit
    has started passes SIGTERM on.
    """
    if "SUBMITIT_EXECUTOR" in os.environ:
        name = f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"
        signal.signal(signal.Signals[name], signal.SIG_IGN)


BEFORE_EXEC = leave_requeue_signal_to_parent if os.name == "posix" else None


def run_apart(folder: Path, arguments: Sequence[str], console: Path | None = None) -> Status:
    """Run the command line in a subprocess, and wait for its end.

    Args:
        folder: of the run.
        arguments: of the command line.
        console: file that its output is added to; None is this process's own.

    Returns:
        How the run ended: "done"; "failed" with the reason, from its ``status.json`` or the last
            line of its output; "cut off" when a signal has ended it.

    Raises:
        Interrupted: when it was asked to stop. SIGTERM is passed on to it: it can save itself.
    """
    with ExitStack() as stack:
        output = None if console is None else stack.enter_context(console.open("ab"))
        process = stack.enter_context(
            subprocess.Popen(  # noqa: S603  # our own command line, and no shell
                [sys.executable, "-m", "vaelab.run", *arguments],
                stdout=output,
                stderr=None if output is None else subprocess.STDOUT,
                env=environment(),
                preexec_fn=BEFORE_EXEC,
            )
        )
        stack.enter_context(_passing_on_sigterm(process))
        code = process.wait()
    if code == EXIT_INTERRUPTED:
        raise Interrupted(f"{folder.name} was asked to stop, and has saved itself")
    status = read_status(folder)
    if code == 0 and status is not None:
        return status
    if code < 0:
        return Status("cut off", error=f"ended by signal {-code}; 9 is often a lack of memory")
    error = status.error if status is not None else ""
    return Status("failed", error=error or _last_line(console) or f"exit status {code}")


def _last_line(console: Path | None) -> str:
    said = "" if console is None else console.read_text("utf-8", errors="replace").strip()
    return said.splitlines()[-1] if said else ""


@contextmanager
def _passing_on_sigterm(process: subprocess.Popen[bytes]) -> Iterator[None]:
    def pass_on(number: int, frame: FrameType | None) -> None:
        process.terminate()

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

"""Set up standard streams and SIGTERM before anything else."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vaelab.errors import EXIT_INTERRUPTED
from vaelab.runs.processes import announce, this_process


def open_standard_streams() -> None:
    """Open closed standard streams, and escape characters that their encoding does not have.

    Closed streams (``>&- 2>&-``) become the null device. Otherwise a file opened later would get
    their number, and console output would be written to it.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """End the process with ``EXIT_INTERRUPTED`` on SIGTERM, until a run handles it.

    At once and without an exception, which a module being imported could catch.
    """
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, frame: FrameType | None) -> None:
    process = this_process()
    if process.rank == 0 and process.launcher != "vaelab":  # the others print nothing
        announce(None)
        os.write(2, b"vaelab: stopped by SIGTERM; nothing has begun\n")
    os._exit(EXIT_INTERRUPTED)

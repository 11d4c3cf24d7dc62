"""What a process sees to before anything else: its standard streams, and SIGTERM."""

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
    """Make sure that whatever is printed goes somewhere, and that no character is an error.

    Streams that were closed (``>&- 2>&-``) become the null device: a file that is opened later
    would take their numbers, and what is meant for the console would be written into it. What an
    encoding such as ASCII does not have is printed as its number.
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
    """Until a run takes SIGTERM over, it ends the process with ``EXIT_INTERRUPTED``.

    At once: an exception could be caught by one of the many modules that are imported meanwhile.
    """
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, frame: FrameType | None) -> None:
    process = this_process()
    if process.rank == 0 and process.launcher != "vaelab":  # those that follow it say nothing
        announce(None)
        os.write(2, b"vaelab: stopped by SIGTERM; nothing has begun\n")
    os._exit(EXIT_INTERRUPTED)

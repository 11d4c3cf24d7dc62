"""CPU threads that spin at barriers while cores are free, and sleep while others need them."""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import torch

from vaelab.data.build import available_cores

log = logging.getLogger(__name__)

CHOSEN_BY_USER = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
CROWDED, FREE = 0.25, 0.1
"""Cores too few for all: above the first, threads sleep; below the second, they spin again."""
PERIOD = 0.5
"""Seconds between two looks."""


class CPUTime(NamedTuple):
    """Seconds that the cores this process may use have worked, since the system started."""

    everybody: float
    own: float
    """Of this process, all its threads."""


class PoliteThreads:
    """Within this context PyTorch's CPU threads sleep at barriers while other processes compute.

    The threads of an operation meet at a barrier, where those that are early spin for
    milliseconds: the fastest way to go on, as long as each has a core. Beside other processes the
    late one waits for a core that an early one spins on, and a step takes 4 to 60 times as long.
    libgomp, which PyTorch uses on Linux, hardly spins while a process has more OpenMP threads than
    cores (``GOMP_SPINCOUNT`` in its manual). So as long as others need the cores, threads that do
    nothing are kept, enough to be more. Which thread computes what stays as it is, and so does
    every bit of the result.

    Nothing is done elsewhere than on Linux, with a single thread, and where the user has set
    ``OMP_WAIT_POLICY`` or ``GOMP_SPINCOUNT``.

    Args:
        cpu_time: how long everybody and this process have computed.
        period: seconds between two looks.
    """

    def __init__(
        self, cpu_time: Callable[[], CPUTime] | None = None, period: float = PERIOD
    ) -> None:
        self._cpu_time = cpu_time or read_cpu_time
        self._period = period
        self._ended = threading.Event()
        self._watch: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Begin to look."""
        by_user = any(name in os.environ for name in CHOSEN_BY_USER)
        if sys.platform == "linux" and torch.get_num_threads() > 1 and not by_user:
            self._watch = threading.Thread(target=self._look, name="polite threads", daemon=True)
            self._watch.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Threads spin again."""
        self._ended.set()
        if self._watch is not None:
            self._watch.join()

    def _look(self) -> None:
        cores, threads = available_cores(), torch.get_num_threads()
        idle: IdleThreads | None = None
        before, then = self._cpu_time(), time.monotonic()
        while not self._ended.wait(self._period):
            after, now = self._cpu_time(), time.monotonic()
            missing = missing_cores(before, after, now - then, cores, threads)
            if idle is None and missing > CROWDED:
                log.debug("others need %.1f of %d cores: threads sleep", missing, cores)
                idle = IdleThreads(cores, threads)
            elif idle is not None and missing < FREE:
                idle.end()
                idle = None
            before, then = after, now
        if idle is not None:
            idle.end()


class IdleThreads:
    """Threads that do nothing, as many as make this process have more of them than cores.

    Args:
        cores: that this process may use.
        threads: that PyTorch computes with.
    """

    def __init__(self, cores: int, threads: int) -> None:
        self._ended = threading.Event()
        # Each of these has a team of its own, of one thread that is not counted and the others.
        count = math.ceil(cores / (threads - 1)) - 1
        hosts = [threading.Thread(target=self._wait, daemon=True) for _ in range(max(1, count))]
        self._hosts = hosts
        for host in hosts:
            host.start()

    def _wait(self) -> None:
        torch.zeros(1 << 18).add_(1)  # large enough for several threads, which are kept
        self._ended.wait()

    def end(self) -> None:
        """End them all."""
        self._ended.set()
        for host in self._hosts:
            host.join()


def missing_cores(
    before: CPUTime, after: CPUTime, seconds: float, cores: int, threads: int
) -> float:
    """How many cores are missing for all to compute at once; below 0 some are free.

    Args:
        before: an earlier look.
        after: a later one.
        seconds: between them.
        cores: that this process may use.
        threads: that this process computes with.
    """
    own = after.own - before.own
    others = max(0.0, after.everybody - before.everybody - own) / seconds
    return others + threads - cores


def read_cpu_time() -> CPUTime:
    """From ``/proc/stat``, of the cores that this process may use."""
    mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *counts = line.split()
        if name in mine:  # user, nice, system, idle, waiting for disks, interrupts, soft ones, ...
            user, nice, system, _, _, *interrupts = map(int, counts)
            ticks += user + nice + system + sum(interrupts[:2])
    return CPUTime(ticks / os.sysconf("SC_CLK_TCK"), time.process_time())

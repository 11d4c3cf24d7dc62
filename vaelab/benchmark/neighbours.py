"""How much longer a step takes beside other processes that compute without a pause."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from vaelab.benchmark.timing import seconds_of
from vaelab.data.build import available_cores

PER_CORE = (1, 2, 4)
SETTLING = 2.0
"""Seconds until threads have noticed who else computes."""
MOST_STEPS = 15


@dataclass(frozen=True)
class Beside:
    """Steps beside so many busy processes, as ratios to the median of steps alone."""

    busy: int
    fair_share: float
    """What it would be if every thread and every process got the same share of the cores."""
    median: float
    worst: float


def beside_neighbours(step: Callable[[], object], seconds: float) -> list[dict[str, Any]]:
    """Steps alone, then beside one, two and four busy processes for each core.

    Args:
        step: to time, on the CPU.
        seconds: that the steps alone take about.
    """
    cpu, cores, threads = torch.device("cpu"), available_cores(), torch.get_num_threads()
    count = min(max(3, round(seconds / seconds_of(step, cpu))), MOST_STEPS)
    alone = statistics.median(seconds_of(step, cpu) for _ in range(count))
    found = []
    for busy in (cores * factor for factor in PER_CORE):
        with _busy(busy):
            _repeat(step, SETTLING)
            times = [seconds_of(step, cpu) / alone for _ in range(count)]
        fair = max(1.0, (busy + threads) / cores)
        found.append(asdict(Beside(busy, fair, statistics.median(times), max(times))))
    return found


def _repeat(step: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        step()


@contextmanager
def _busy(count: int) -> Iterator[None]:
    command = [sys.executable, "-S", "-c", "while True: pass"]
    neighbours = [subprocess.Popen(command) for _ in range(count)]  # noqa: S603
    try:
        yield
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()

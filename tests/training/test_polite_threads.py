"""Threads that wait politely: when they do, how, and that results stay the same."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vaelab.training.polite_threads import (
    CPUTime,
    IdleThreads,
    PoliteThreads,
    missing_cores,
    read_cpu_time,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="only libgomp's threads spin so long")


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def count_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def growing(others: float, cores: int) -> Callable[[], CPUTime]:
    """Other processes that always use so many cores, and a process that uses none."""
    return lambda: CPUTime(everybody=others * time.monotonic(), own=0.0)


@pytest.mark.parametrize(
    ("everybody", "own", "missing"),
    [(2.0, 2.0, 0.0), (2.0, 1.0, 0.5), (4.0, 0.0, 2.0), (0.0, 0.1, 0.0)],
)
def test_cores_are_missing_where_others_work_on_those_the_threads_need(
    everybody: float, own: float, missing: float
) -> None:
    before, after = CPUTime(10.0, 5.0), CPUTime(10.0 + everybody, 5.0 + own)
    assert missing_cores(before, after, 2.0, cores=2, threads=2) == pytest.approx(missing)


def test_with_cores_to_spare_none_is_missing() -> None:
    before, after = CPUTime(0.0, 0.0), CPUTime(4.0, 2.0)  # others: 2 s in 1 s
    assert missing_cores(before, after, 1.0, cores=8, threads=2) == -4.0


@linux
def test_own_and_everybodys_time_are_of_the_system() -> None:
    before = read_cpu_time()
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    after = read_cpu_time()
    assert after.own - before.own >= 0.3
    assert after.everybody - before.everybody >= 0.2  # in ticks of 10 ms


@linux
def test_beside_others_idle_threads_are_kept_and_go_with_them() -> None:
    cores = len(os.sched_getaffinity(0))
    load = [float(cores)]
    total = [0.0]
    last = [time.monotonic()]

    def cpu_time() -> CPUTime:
        now = time.monotonic()
        total[0] += load[0] * (now - last[0])
        last[0] = now
        return CPUTime(total[0], 0.0)

    torch.zeros(1 << 18).add_(1)  # PyTorch's own threads are there
    before = count_threads()
    with PoliteThreads(cpu_time, period=0.01):
        assert until(lambda: count_threads() >= before + 2)  # the watch, and at least one idle host
        busy = threading.active_count()
        load[0] = -2.0 * cores  # nobody
        assert until(lambda: threading.active_count() < busy)
        load[0] = float(cores)
        assert until(lambda: threading.active_count() == busy)
    assert until(lambda: count_threads() == before)


@linux
@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_what_the_user_has_set_is_left_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "PASSIVE")
    before = threading.active_count()
    with PoliteThreads(growing(100.0, 2), period=0.01):
        assert threading.active_count() == before


def test_a_single_thread_has_nobody_to_wait_for() -> None:
    torch.set_num_threads(1)
    before = threading.active_count()
    with PoliteThreads(growing(100.0, 2), period=0.01):
        assert threading.active_count() == before


def test_idle_threads_change_no_bit() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 16, 16, 16)
    conv = torch.nn.Conv3d(4, 8, 3)

    def gradients() -> list[torch.Tensor]:
        conv.zero_grad()
        conv(x).square().sum().backward()
        return [weight.grad.clone() for weight in conv.parameters() if weight.grad is not None]

    alone = gradients()
    idle = IdleThreads(cores=2, threads=2)
    beside = gradients()
    idle.end()
    assert all(torch.equal(a, b) for a, b in zip(alone, beside, strict=True))

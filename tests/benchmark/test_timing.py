"""The order of measurements and their ratios; no test depends on the speed of the machine."""

from __future__ import annotations

import pytest
import torch

from vaelab.benchmark.timing import Timing, matmul_peak, time_in_turn


def test_contenders_take_turns():
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "ab"}
    times = time_in_turn(calls, rounds=3, warm_up=False)
    assert order == ["a", "b"] * 3
    assert {name: len(timing.seconds) for name, timing in times.items()} == {"a": 3, "b": 3}


def test_a_warm_up_is_not_timed():
    calls: list[int] = []
    times = time_in_turn({"a": lambda: calls.append(0)}, rounds=2)
    assert len(calls) == 2 + 2  # one to warm up, one to see how long it takes
    assert len(times["a"].seconds) == 2


def test_a_short_call_is_repeated_to_fill_its_time():
    calls: list[int] = []
    time_in_turn({"a": lambda: calls.append(0)}, rounds=1, seconds=0.01)
    assert len(calls) > 10


def test_ratios_are_taken_within_rounds():
    # The machine was three times as slow in the second round: the ratio does not see it.
    slow, fast = Timing((2.0, 6.0, 2.0)), Timing((1.0, 3.0, 1.0))
    assert slow.over(fast).seconds == (2.0, 2.0, 2.0)
    assert slow.over(fast).sd == 0


def test_median_and_standard_deviation():
    assert Timing((1.0, 2.0, 6.0)).median == 2.0
    assert Timing((1.0, 2.0, 6.0)).sd == pytest.approx(7**0.5)  # (4 + 1 + 9) / 2
    assert Timing((1.0,)).sd == 0.0


def test_the_peak_is_a_rate_of_operations(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vaelab.benchmark.timing.seconds_of", lambda call, device: 2.0)
    peak = matmul_peak(torch.device("cpu"), torch.float32)
    assert peak == 2 * 1536**3 / 2.0

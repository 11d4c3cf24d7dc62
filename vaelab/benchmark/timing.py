"""Time several calls in turn, so that other load on the machine affects all alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from vaelab.progress import progress


@dataclass(frozen=True)
class Timing:
    """Seconds of a call, measured once in each round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median over the rounds, in seconds."""
        return statistics.median(self.seconds)

    @property
    def sd(self) -> float:
        """Sample standard deviation over the rounds, in seconds; 0 for a single round."""
        return statistics.stdev(self.seconds) if len(self.seconds) > 1 else 0.0

    def over(self, other: Timing) -> Timing:
        """Ratio to ``other`` in each round, that is under the same load; above 1 is slower."""
        pairs = zip(self.seconds, other.seconds, strict=True)
        return Timing(tuple(mine / theirs for mine, theirs in pairs))

    def summary(self) -> dict[str, float]:
        """``{"median", "sd"}``."""
        return {"median": self.median, "sd": self.sd}


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished its queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def seconds_of(call: Callable[[], object], device: torch.device, calls: int = 1) -> float:
    """Mean seconds of a call, over ``calls`` calls in a row."""
    synchronise(device)
    start = time.perf_counter()
    for _ in range(calls):
        call()
    synchronise(device)
    return (time.perf_counter() - start) / calls


def time_in_turn(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    seconds: float = 0.0,
    device: torch.device | None = None,
    progress_bar: bool = False,
    warm_up: bool = True,
) -> dict[str, Timing]:
    """Time every contender once in each round: A B C A B C, never A A B B C C.

    Args:
        contenders: name → function.
        rounds: number of measurements of each.
        seconds: a measurement repeats a call until it takes about this long.
        device: to wait for; None is the CPU.
        progress_bar: show a progress bar.
        warm_up: call each once before, and once more to estimate its time.
    """
    device = device or torch.device("cpu")
    calls = dict.fromkeys(contenders, 1)
    if warm_up:
        for name, call in contenders.items():
            seconds_of(call, device)
            once = seconds_of(call, device)
            calls[name] = max(1, math.ceil(seconds / once))
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    bar = progress(range(rounds), desc="timing", unit="round", shown=progress_bar)
    for _ in bar:
        for name, call in contenders.items():
            bar.set_postfix_str(name)
            taken[name].append(seconds_of(call, device, calls[name]))
    return {name: Timing(tuple(values)) for name, values in taken.items()}


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of several products of square matrices: a limit of the machine.

    A multiplication and an addition count as two, as in ``torch.utils.flop_counter``.
    """
    side = 1536 if device.type == "cpu" else 8192
    a = torch.randn(side, side, device=device).to(dtype)
    b = torch.randn(side, side, device=device).to(dtype)
    torch.mm(a, b)
    best = min(seconds_of(lambda: torch.mm(a, b), device) for _ in range(8))
    return 2 * side**3 / best

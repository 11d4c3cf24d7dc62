"""Bootstrap intervals over patients, for numbers that are sums over scans or pairs of scans.

A resample is a row of weights: how often each patient was drawn. A measure that takes such rows
computes its value on all resamples at once; a row of ones gives the value on the data themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number and its confidence interval."""

    value: float
    """On the data themselves, not resampled."""
    low: float
    high: float


def patient_weights(
    patients: Sequence[str],
    num_resamples: int,
    seed: int,
    labels: NDArray[np.int64] | None = None,
) -> Floats:
    """How often each scan counts, (1 + R, N): first a row of ones, then R resamples.

    Scans of one patient are drawn together (Field & Welsh 2007, the cluster bootstrap): they
    resemble each other, and drawing scans would overstate the evidence.

    Args:
        patients: of each scan, (N,).
        num_resamples: R.
        seed: of the draws.
        labels: class of each scan, (N,), a small number from 0 on. Patients with scans of the same
            classes are then drawn separately, so that every resample has every class.
    """
    names, of_scan = np.unique(np.asarray(list(patients)), return_inverse=True)
    classes = np.zeros(len(names), np.int64)  # of each patient, a bit for each
    if labels is not None:
        np.bitwise_or.at(classes, of_scan, 1 << np.asarray(labels, np.int64))
    draw = np.random.default_rng(seed)
    times = np.empty((num_resamples, len(names)))
    for members in (np.flatnonzero(classes == kind) for kind in np.unique(classes)):
        share = np.full(len(members), 1 / len(members))
        times[:, members] = draw.multinomial(len(members), share, num_resamples)
    return np.vstack([np.ones(len(of_scan)), times[:, of_scan]])


def interval(values: Floats, level: float = 0.95) -> Estimate:
    """The first value with the percentile interval of the rest (Efron 1979), (1 + R,).

    Resamples on which the number is undefined, NaN, are left out.
    """
    tail = 50 * (1 - level)
    rest = values[1:][np.isfinite(values[1:])]
    low, high = np.percentile(rest, (tail, 100 - tail)) if len(rest) else (np.nan, np.nan)
    return Estimate(float(values[0]), float(low), float(high))


def over_scans(numbers: Floats, weights: Floats) -> Floats:
    """Weighted sum of numbers per scan, (N, ...) → (1 + R, ...)."""
    result: Floats = weights @ numbers
    return result


def over_pairs(numbers: Floats, weights: Floats) -> Floats:
    """Weighted sum over pairs of different scans, (N, N) → (1 + R,).

    A pair counts w_i w_j times. A scan that was drawn twice makes no pair with itself: its
    distance of zero would not be information about the space.
    """
    between = numbers.copy()
    np.fill_diagonal(between, 0)
    result: Floats = ((weights @ between) * weights).sum(1)
    return result

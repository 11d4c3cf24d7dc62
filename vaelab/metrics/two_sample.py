"""Two-sample tests: are these of the same distribution as those?"""

from __future__ import annotations

from math import comb

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Floats = NDArray[np.float64]


def energy_test(first: Floats, second: Floats, permutations: int, seed: int) -> float:
    """p-value of two samples being exchangeable, by permutations of their energy distance.

    2 E|X − Y| − E|X − X'| − E|Y − Y'| of Euclidean distances (Székely & Rizzo 2013, equation 5.2)
    is compared with its values once the samples' rows are dealt out anew. With the samples
    themselves counted among the R + 1 (Phipson & Smyth 2010) the level is exact in samples of any
    size: P(p ≤ α) ≤ α.

    Args:
        first: (n, d), finite.
        second: (m, d).
        permutations: R.
        seed: of the draws.

    Returns:
        In [1/(R + 1), 1].
    """
    n, m = len(first), len(second)
    rows = np.concatenate([first, second]).astype(np.float64)
    distances = cdist(rows, rows)
    draw = np.random.default_rng(seed)
    places = np.argsort(draw.random((permutations, n + m)), axis=1)[:, :n]
    member = np.zeros((1 + permutations, n + m))
    member[0, :n] = 1
    np.put_along_axis(member[1:], places, 1, axis=1)
    to_first = member @ distances  # (1 + R, n + m)
    within_first = (to_first * member).sum(1)
    between = (to_first * (1 - member)).sum(1)
    within_second = distances.sum() - within_first - 2 * between
    statistic = 2 * between / (n * m) - within_first / n**2 - within_second / m**2
    rounding = 1e-12 * max(float(distances.max()), 1e-300)
    return float((statistic[1:] >= statistic[0] - rounding).sum() + 1) / (permutations + 1)


def smallest_p(n: int, m: int) -> float:
    """The smallest p-value that samples of these sizes can have, whatever their difference."""
    return 1 / comb(n + m, m)

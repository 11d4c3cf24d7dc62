"""How often values occur, of any number of them and in one pass: bins that fit every float32."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaelab.errors import UserError

DROPPED_BITS = 15
"""Of the 23 bits of a float32's mantissa: a bin is at most 1/256 of its values wide."""
BINS = 2 ** (32 - DROPPED_BITS)
SIGN = np.uint32(1 << 31)


def bins_of(values: ArrayLike) -> NDArray[np.int64]:
    """The bin of each value, in order of the values; equal floats share one, 0 and -0 too.

    Raises:
        UserError: when a value is not finite.
    """
    numbers = np.asarray(values)
    bad = int((~np.isfinite(numbers)).sum())
    if bad:
        raise UserError(
            f"{bad} of {numbers.size} values of a heat map are not finite; did the run diverge?"
        )
    floats = np.ascontiguousarray(numbers, np.float32) + np.float32(0)  # of -0, too
    bits = floats.view(np.uint32).reshape(numbers.shape)
    ordered = np.where(bits & SIGN, ~bits, bits | SIGN)  # as unsigned numbers, the same order
    return (ordered >> DROPPED_BITS).astype(np.int64)


def lower_edges(bins: ArrayLike) -> NDArray[np.float64]:
    """The smallest float32 of each bin, exactly."""
    ordered = (np.asarray(bins, np.uint64) << DROPPED_BITS).astype(np.uint32)
    bits = np.where(ordered & SIGN, ordered & ~SIGN, ~ordered)
    return bits.view(np.float32).astype(np.float64)


@dataclass(frozen=True, eq=False)
class ValueHistogram:
    """Counts of values; those of several batches add up.

    >>> ValueHistogram().add([1.0, 2.0, 3.0, 4.0]).quantile(0.5)
    2.0
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    """(BINS,)"""

    def add(self, values: ArrayLike, times: ArrayLike | None = None) -> ValueHistogram:
        """With more values, any shape.

        Args:
            values: finite.
            times: how often each occurs, whole numbers shaped like ``values``; None: once.

        Raises:
            UserError: when one is not finite.
        """
        weights = None if times is None else np.asarray(times).ravel()
        counts = np.bincount(bins_of(values).ravel(), weights, minlength=BINS)
        return ValueHistogram(self.counts + counts.astype(np.int64))

    @property
    def total(self) -> int:
        """Values counted."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """A value that ``share`` of the values do not exceed, but for the width of its bin.

        The lower edge of the bin that holds the value of rank ``share · total``; at most 1/256
        below it.

        Args:
            share: in (0, 1].
        """
        assert self.total, "of no value there is no quantile"
        rank = max(1, round(share * self.total))
        return float(lower_edges(np.searchsorted(np.cumsum(self.counts), rank)))

"""Bins that fit every float32, in its order."""

from __future__ import annotations

import numpy as np
import pytest

from vaelab.errors import UserError
from vaelab.metrics.histogram import ValueHistogram, bins_of, lower_edges


def some_floats() -> np.ndarray:
    """Ascending float32 of both signs and of all magnitudes."""
    magnitudes = np.geomspace(1e-38, 1e38, 20_001).astype(np.float32)
    return np.concatenate([-magnitudes[::-1], [0.0], magnitudes]).astype(np.float32)


def test_bins_are_in_the_order_of_their_values() -> None:
    assert (np.diff(bins_of(some_floats())) >= 0).all()
    assert bins_of(-0.0) == bins_of(0.0)


def test_a_value_reaches_the_lower_edge_of_its_bin_and_not_that_of_the_next() -> None:
    values = some_floats()
    bins = bins_of(values)
    assert (lower_edges(bins) <= values).all()
    assert (values < lower_edges(bins + 1)).all()
    assert (bins_of(lower_edges(bins)) == bins).all()


def test_a_bin_is_at_most_a_256th_of_its_values_wide() -> None:
    values = np.geomspace(1e-30, 1e30, 1001)
    bins = bins_of(values)
    assert ((lower_edges(bins + 1) - lower_edges(bins)) <= values / 256 * (1 + 1e-6)).all()


@pytest.mark.parametrize(("share", "top"), [(0.995, 995), (0.5, 500), (1.0, 1000), (1e-9, 1)])
def test_a_quantile_is_the_value_of_its_rank_to_a_256th(share: float, top: float) -> None:
    shuffled = np.random.default_rng(0).permutation(1000) + 1.0  # 1 … 1000
    whole = ValueHistogram().add(shuffled)
    parts = ValueHistogram().add(shuffled[:10]).add(shuffled[10:].reshape(9, 110))
    assert whole.quantile(share) == parts.quantile(share)
    assert top * (1 - 1 / 256) <= whole.quantile(share) <= top


def test_one_bright_value_does_not_move_a_quantile() -> None:
    values = np.arange(1, 1001.0)
    before = ValueHistogram().add(values).quantile(0.995)
    values[-1] = 1e9
    assert ValueHistogram().add(values).quantile(0.995) == before


def test_half_precision_and_double_are_counted_as_float32() -> None:
    values = np.array([0.1, 2.0, -3.5])
    for kind in (np.float16, np.float64):
        assert (bins_of(values.astype(kind)) == bins_of(values.astype(kind).astype("f4"))).all()


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(UserError, match="2 of 4 values of a heat map are not finite"):
        ValueHistogram().add([0.0, np.nan, 1.0, np.inf])

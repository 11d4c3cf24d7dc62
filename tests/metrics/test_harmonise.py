"""Claims about taking a site out of latents, on data whose answer is known."""

from __future__ import annotations

import numpy as np

from vaelab.metrics.harmonise import combat, site_accuracy

DRAW = np.random.default_rng(0)
SITES = ["a", "b"] * 100
IS_B = np.array([site == "b" for site in SITES])
PATIENTS = [f"p{row}" for row in range(200)]
CLEAN = DRAW.normal(size=(200, 20))
# The second site adds 2, and twice the spread.
SCANNED = np.where(IS_B[:, None], 2 + 2 * CLEAN, CLEAN)


def test_sites_of_another_mean_and_spread_become_alike() -> None:
    values, scale = combat(SCANNED, SITES)
    gap = values[IS_B].mean(0) - values[~IS_B].mean(0)
    # Before it is 2. Both now have a spread of about sqrt((1 + 4) / 2) = 1.58: chance alone would
    # put their means 1.58 * sqrt(2 / 100) = 0.22 apart.
    assert np.abs(gap).max() < 2 * 0.22
    ratio = values[IS_B].std(0) / values[~IS_B].std(0)
    assert np.abs(np.log(ratio)).max() < 0.15  # before it is log 2 = 0.69
    np.testing.assert_allclose(scale[0] / scale[1], 2, rtol=0.25)  # what b is scaled down by


def test_the_order_of_subjects_within_a_site_stays() -> None:
    values, _ = combat(SCANNED, SITES)
    for unit in range(3):
        assert (np.argsort(values[IS_B, unit]) == np.argsort(SCANNED[IS_B, unit])).all()


def test_sites_that_do_not_differ_lose_next_to_nothing() -> None:
    values, _ = combat(CLEAN, SITES)
    # The site means differ by chance, 0.14 in the spread of a unit; most of it is shrunk away.
    assert np.sqrt(((values - CLEAN) ** 2).mean()) < 0.1


def test_the_site_is_told_before_and_not_after() -> None:
    assert site_accuracy(SCANNED, SITES, PATIENTS) > 0.95
    values, _ = combat(SCANNED, SITES)
    # A coin has 0.5 with a standard deviation of 0.5 / sqrt(200) = 0.035.
    assert abs(site_accuracy(values, SITES, PATIENTS) - 0.5) < 4 * 0.035


def test_a_unit_that_is_the_same_for_all_stays() -> None:
    idle = np.column_stack([SCANNED, np.zeros(200)])
    assert np.allclose(combat(idle, SITES).values[:, -1], 0)

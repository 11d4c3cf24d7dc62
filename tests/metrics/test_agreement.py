"""Agreement of two latent spaces: rotated, independent, and in between."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import ortho_group, spearmanr

from vaelab.metrics.agreement import (
    aligned_components,
    aligned_r2,
    distance_rank_correlation,
    linear_cka,
    neighbour_agreement,
)
from vaelab.metrics.bootstrap import patient_weights
from vaelab.metrics.reliability import distances

Floats = NDArray[np.float64]
Measure = Callable[[Floats, Floats, Floats], Floats]

SUBJECTS, UNITS = 60, 6
ONCE = np.ones((1, SUBJECTS))


def by_alignment(a: Floats, b: Floats, weights: Floats) -> Floats:
    return aligned_r2(a, b, weights, seed=0)


def by_neighbours(a: Floats, b: Floats, weights: Floats) -> Floats:
    return neighbour_agreement(a, b, weights, neighbours=5)


MEASURES = [by_alignment, linear_cka, distance_rank_correlation, by_neighbours]


def space(seed: int, subjects: int = SUBJECTS, units: int = UNITS) -> Floats:
    """Independent units of unlike variance, as those of a VAE are."""
    scales = np.linspace(2, 0.5, units)
    result: Floats = np.random.default_rng(seed).normal(size=(subjects, units)) * scales
    return result


def rotated(points: Floats) -> Floats:
    turn = ortho_group.rvs(points.shape[1], random_state=np.random.default_rng(7))
    result: Floats = 3.0 * points @ turn + 5.0  # scaled and shifted too; may be reflected
    return result


@pytest.mark.parametrize("measure", MEASURES)
def test_a_rotated_shifted_scaled_copy_is_the_same_space(measure: Measure) -> None:
    assert measure(space(0), rotated(space(0)), ONCE)[0] == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("measure", MEASURES)
def test_independent_spaces_agree_by_chance_alone(measure: Measure) -> None:
    values = [measure(space(seed), space(seed + 100), ONCE)[0] for seed in range(20)]
    assert -0.2 < np.mean(values) < 0.1  # alignment scores below zero what it fitted in vain
    assert max(values) < 0.3


@pytest.mark.parametrize("measure", MEASURES)
def test_a_noisy_copy_is_in_between_and_more_noise_is_less_agreement(measure: Measure) -> None:
    noise = np.random.default_rng(1).normal(size=(SUBJECTS, UNITS))
    little, much = (measure(space(0), rotated(space(0) + s * noise), ONCE)[0] for s in (0.3, 1.2))
    assert 0.15 < much < little - 0.1
    assert little < 1


@pytest.mark.parametrize("measure", MEASURES)
def test_more_units_than_subjects_do_not_make_independent_spaces_agree(measure: Measure) -> None:
    a, b = space(0, SUBJECTS, 200), space(1, SUBJECTS, 200)
    assert measure(a, b, ONCE)[0] < 0.2


@pytest.mark.parametrize("measure", MEASURES)
def test_the_measure_does_not_depend_on_which_space_comes_first(measure: Measure) -> None:
    a, b = space(0), rotated(space(0) + space(1))
    assert measure(a, b, ONCE)[0] == pytest.approx(measure(b, a, ONCE)[0])


@pytest.mark.parametrize("measure", MEASURES)
def test_resamples_scatter_around_the_value(measure: Measure) -> None:
    weights = patient_weights([str(i) for i in range(SUBJECTS)], 200, seed=0)
    values = measure(space(0), space(0) + space(1), weights)
    assert values.shape == (201,)
    low, high = np.percentile(values[1:], (1, 99))
    assert low < values[0] < high
    assert 0.01 < values[1:].std() < 0.2


def test_a_variance_shared_by_half_is_explained_by_half() -> None:
    # b = a + noise of a's variance: of b's variance half is a; of a's, projected on b, half too.
    scale = np.array([3.0, 2.0])
    draw = np.random.default_rng(0)
    a = draw.normal(size=(4000, 2)) * scale
    b = a + draw.normal(size=(4000, 2)) * scale
    assert aligned_r2(a, b, np.ones((1, 4000)), 0)[0] == pytest.approx(0.5, abs=0.03)


def test_as_many_components_are_aligned_as_hold_the_variance_and_subjects_allow() -> None:
    points = np.zeros((60, 10))
    points[:, :3] = np.random.default_rng(0).normal(size=(60, 3))
    assert aligned_components(points, points) == 3
    assert aligned_components(space(0, 18, 100), space(1, 18, 100)) == 3  # 9 fitted on, 3 each


def test_the_rank_correlation_is_spearmans() -> None:
    a, b = space(0), space(0) + space(1)
    upper = np.triu_indices(SUBJECTS, 1)
    expected = spearmanr(distances(a)[upper], distances(b)[upper]).statistic
    assert distance_rank_correlation(a, b, ONCE)[0] == pytest.approx(expected)


def test_shared_neighbours_are_counted_beyond_chance() -> None:
    # On a line 0 1 10 11 everyone's nearest is its twin. In the other space 1 has moved to 12:
    # 0 → 10, 1 → 11, 10 → 11, 11 → 1 or 10 (the first of two at 1). One of four agrees: 10's.
    a = np.array([[0.0], [1.0], [10.0], [11.0]])
    b = np.array([[0.0], [12.0], [10.0], [11.0]])
    share, chance = 1 / 4, 1 / 3
    values = neighbour_agreement(a, b, np.ones((1, 4)), neighbours=1)[0]
    assert values == pytest.approx((share - chance) / (1 - chance))


def test_debiased_alignment_agrees_with_the_definition_of_unbiased_hsic() -> None:
    # Song et al. 2012, equation 5: [tr(KL) + 1'K1 1'L1/((n-1)(n-2)) - 2 1'KL1/(n-2)] / (n(n-3)).
    def hsic(k: Floats, other: Floats) -> float:
        k, other = k - np.diag(np.diag(k)), other - np.diag(np.diag(other))
        n, ones = len(k), np.ones(len(k))
        both = (ones @ k @ ones) * (ones @ other @ ones) / ((n - 1) * (n - 2))
        crossed = 2 * (ones @ k @ other @ ones) / (n - 2)
        return float((np.trace(k @ other) + both - crossed) / (n * (n - 3)))

    a, b = space(0), space(0) + space(1)
    gram_a, gram_b = a @ a.T, b @ b.T
    expected = hsic(gram_a, gram_b) / np.sqrt(hsic(gram_a, gram_a) * hsic(gram_b, gram_b))
    assert linear_cka(a, b, ONCE)[0] == pytest.approx(expected)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_space_that_is_one_point_agrees_with_nothing(measure: Measure) -> None:
    rounding = 1e-8 * space(1)
    for point in (np.ones((SUBJECTS, UNITS)), np.zeros((SUBJECTS, UNITS)), 1 + rounding):
        assert np.isnan(measure(space(0), point, ONCE)).all()
        assert np.isnan(measure(point, space(0), ONCE)).all()

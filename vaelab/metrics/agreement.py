"""Agreement of two latent spaces: do they arrange the same subjects in the same way?

Spaces of two seeds share no axes: unit 7 of one is a mixture of units of the other, or has
the opposite sign. Every measure here is invariant to rotation, reflection, shift and a common
scale. It is 1 for spaces that differ only by these, and about 0 for independent spaces.

Arguments of all functions:
    a, b: positions of the same N subjects in two spaces, a row per subject, (N, z) and (N, z').
    weights: how often each subject counts, (R, N); see ``vaelab.metrics.bootstrap``.

All return NaN where a space has collapsed to a single point.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes
from scipy.stats import rankdata

from vaelab.metrics.bootstrap import over_pairs, over_scans
from vaelab.metrics.reliability import distances

Floats = NDArray[np.float64]

VARIANCE_KEPT = 0.95
"""Share of each space's variance in the aligned components, where subjects are many enough."""
SUBJECTS_PER_COMPONENT = 3
"""Subjects of the fit per aligned component. With as many components as subjects a rotation fits
anything."""


def aligned_components(a: Floats, b: Floats) -> int:
    """Number of principal components that ``aligned_r2`` compares."""
    needed = max(_components_for(VARIANCE_KEPT, points) for points in (a, b))
    return max(1, min(needed, len(a) // 2 // SUBJECTS_PER_COMPONENT))


def aligned_r2(a: Floats, b: Floats, weights: Floats, seed: int, repeats: int = 10) -> Floats:
    """Share of the variance of one space that the other, rotated and scaled, explains, (R,).

    Orthogonal Procrustes (Schönemann 1966) with a scale, between the leading principal components
    of both. Components, rotation and scale are fitted on a random half of the subjects and scored
    on the other half, both ways, from ``a`` to ``b`` and back, in ``repeats`` random halvings.
    Scored where it was fitted, it would be near 1 for any two spaces of more units than subjects.
    Independent spaces score zero or less.

    Args:
        a, b, weights: see above.
        seed: of the halvings.
        repeats: number of halvings.
    """
    if _is_point(a) or _is_point(b):
        return np.full(len(weights), np.nan)
    count = len(a)
    components = aligned_components(a, b)
    errors, totals = np.zeros((2, count)), np.zeros((2, count))
    draw = np.random.default_rng(seed)
    for _ in range(repeats):
        order = draw.permutation(count)
        halves = order[: count // 2], order[count // 2 :]
        for fit, score in (halves, halves[::-1]):
            from_fit, from_score = _project(a, fit, score, components)
            to_fit, to_score = _project(b, fit, score, components)
            rotation, alignment = orthogonal_procrustes(from_fit, to_fit)
            for way, (source, target, turn, norm) in enumerate(
                (
                    (from_score, to_score, rotation, from_fit),
                    (to_score, from_score, rotation.T, to_fit),
                )
            ):
                scale = alignment / (norm**2).sum()
                errors[way, score] += ((target - scale * source @ turn) ** 2).sum(1)
                totals[way, score] += (target**2).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        both_ways = [
            1 - over_scans(errors[way], weights) / over_scans(totals[way], weights)
            for way in (0, 1)
        ]
    result: Floats = np.mean(both_ways, axis=0)
    return result


def linear_cka(a: Floats, b: Floats, weights: Floats) -> Floats:
    """Debiased linear centred kernel alignment, (R,).

    Kornblith et al. 2019 (arXiv:1905.00414), equation 4, with the unbiased HSIC of Song et al. 2012
    (JMLR 13), equation 5: the biased estimate grows towards 1 with units per subject.
    Needs 4 subjects.
    """
    if _is_point(a) or _is_point(b):
        return np.full(len(weights), np.nan)
    gram_a, gram_b = _u_centred(a @ a.T), _u_centred(b @ b.T)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = over_pairs(gram_a * gram_b, weights) / np.sqrt(
            over_pairs(gram_a * gram_a, weights) * over_pairs(gram_b * gram_b, weights)
        )
    return result


def distance_rank_correlation(a: Floats, b: Floats, weights: Floats) -> Floats:
    """Spearman correlation of all pairwise distances, (R,) (Kriegeskorte et al. 2008).

    Ranks are those of all subjects, in resamples too.
    """
    if _is_point(a) or _is_point(b):
        return np.full(len(weights), np.nan)
    ranks_a, ranks_b = _distance_ranks(a), _distance_ranks(b)
    pairs = over_pairs(np.ones_like(ranks_a), weights)

    def mean(numbers: Floats) -> Floats:
        result: Floats = over_pairs(numbers, weights) / pairs
        return result

    with np.errstate(invalid="ignore", divide="ignore"):
        covariance = mean(ranks_a * ranks_b) - mean(ranks_a) * mean(ranks_b)
        variances = [mean(ranks**2) - mean(ranks) ** 2 for ranks in (ranks_a, ranks_b)]
        result: Floats = covariance / np.sqrt(variances[0] * variances[1])
    return result


def neighbour_agreement(a: Floats, b: Floats, weights: Floats, neighbours: int) -> Floats:
    """Share of each subject's k nearest neighbours that are so in both spaces, beyond chance, (R,).

    (share - chance) / (1 - chance) with chance = k / (N - 1), as Cohen's kappa is corrected.
    """
    if _is_point(a) or _is_point(b):
        return np.full(len(weights), np.nan)
    chance = neighbours / (len(a) - 1)
    near = [_nearest(points, neighbours) for points in (a, b)]
    shared = (near[0] & near[1]).sum(1) / neighbours
    share = over_scans(shared, weights) / weights.sum(1)
    result: Floats = (share - chance) / (1 - chance)
    return result


def _is_point(points: Floats) -> bool:
    """Whether all positions are equal up to rounding of float32."""
    return bool(np.ptp(points, axis=0).max() <= 1e-6 * np.abs(points).max())


def _components_for(share: float, points: Floats) -> int:
    variance = np.linalg.svd(points - points.mean(0), compute_uv=False) ** 2
    return int(np.searchsorted(np.cumsum(variance), share * variance.sum() * (1 - 1e-9))) + 1


def _project(
    points: Floats, fit: NDArray[np.int64], score: NDArray[np.int64], components: int
) -> tuple[Floats, Floats]:
    """Both halves on the principal components of the first; (n, components) each."""
    mean = points[fit].mean(0)
    _, _, axes = np.linalg.svd(points[fit] - mean, full_matrices=False)
    kept = axes[:components].T
    return (points[fit] - mean) @ kept, (points[score] - mean) @ kept


def _u_centred(gram: Floats) -> Floats:
    """Gram matrix whose products with another average to the unbiased HSIC; zero diagonal.

    Székely & Rizzo 2014 (Annals of Statistics 42), definition 2.
    """
    n = len(gram)
    between = gram - np.diag(np.diag(gram))
    rows = between.sum(1, keepdims=True) / (n - 2)
    result: Floats = between - rows - rows.T + between.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(result, 0)
    return result


def _distance_ranks(points: Floats) -> Floats:
    """Rank of each pair's distance among all pairs, (N, N), in (0, 1]; zero diagonal."""
    upper = np.triu_indices(len(points), 1)
    ranks = np.zeros((len(points), len(points)))
    ranks[upper] = rankdata(distances(points)[upper]) / len(upper[0])
    return ranks + ranks.T


def _nearest(points: Floats, neighbours: int) -> NDArray[np.bool_]:
    """Whether column j is among the k nearest of row i, (N, N)."""
    distance = distances(points)
    np.fill_diagonal(distance, np.inf)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :neighbours]
    result = np.zeros(distance.shape, dtype=bool)
    np.put_along_axis(result, nearest, values=True, axis=1)
    return result

"""Remove from latents what the site of a scan explains, and ask how well it can still be told.

ComBat: Johnson, Li & Rabinovic 2007 (Biostatistics 8, 118), parametric, without covariates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vaelab.metrics.regression import patient_folds

Floats = NDArray[np.float64]

CONVERGED, MOST_STEPS = 1e-6, 1000


class Harmonised(NamedTuple):
    """Values in which all sites have about the same mean and variance."""

    values: Floats
    """(N, z)."""
    scale: Floats
    """Factor on each value's distance from its site's mean, (N, z)."""


def combat(values: Floats, sites: Sequence[str]) -> Harmonised:
    """Give all sites the mean and variance of the whole, site by site and unit by unit.

    A site's mean and variance in a unit are shrunk towards those of its other units by empirical
    Bayes, equations 3.1 and 3.2. What differs between sites for other reasons, such as larger
    tumours at one of them, goes too.

    Args:
        values: (N, z), of which two units vary at least.
        sites: of each row, at least two rows each.
    """
    names = np.asarray(sites)
    groups = [np.flatnonzero(names == site) for site in np.unique(names)]
    mean = values.mean(0)
    within = np.concatenate([values[rows] - values[rows].mean(0) for rows in groups])
    spread = np.sqrt((within**2).mean(0))
    varies = spread > 0  # a unit that is the same within every site stays as it is
    standard = (values - mean)[:, varies] / spread[varies]
    result, scale = values.copy(), np.ones_like(values)
    for rows in groups:
        shift, variance = _posterior(standard[rows])
        there = np.ix_(rows, np.flatnonzero(varies))
        scale[there] = 1 / np.sqrt(variance)
        freed = (standard[rows] - shift) * scale[there]
        result[there] = mean[varies] + spread[varies] * freed
    return Harmonised(result, scale)


def _posterior(standard: Floats) -> tuple[Floats, Floats]:
    """Mean and variance of one site in each unit, (z,) each, after shrinkage."""
    count = len(standard)
    means, variances = standard.mean(0), np.maximum(standard.var(0, ddof=1), 1e-12)
    prior_mean, prior_variance = means.mean(), max(means.var(ddof=1), 1e-12)
    centre, width = variances.mean(), max(variances.var(ddof=1), 1e-12)
    shape = 2 + centre**2 / width  # of the inverse gamma distribution with these moments
    rate = centre * (shape - 1)
    shift, variance = means, variances
    for _ in range(MOST_STEPS):
        weight = count * prior_variance
        new_shift = (weight * means + variance * prior_mean) / (weight + variance)
        squares = ((standard - new_shift) ** 2).sum(0)
        new_variance = (rate + squares / 2) / (count / 2 + shape - 1)
        moved = max(np.abs(new_shift - shift).max(), np.abs(new_variance / variance - 1).max())
        shift, variance = new_shift, new_variance
        if moved < CONVERGED:
            break
    return shift, variance


def site_accuracy(values: Floats, sites: Sequence[str], patients: Sequence[str]) -> float:
    """Balanced accuracy of logistic regression across patients; chance is 1 / number of sites."""
    names = np.asarray(sites)
    told = names.copy()
    for fit, test in patient_folds(patients):
        if len(set(names[fit])) == 1:
            told[test] = names[fit][0]
            continue
        model = make_pipeline(
            StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000)
        )
        told[test] = model.fit(values[fit], names[fit]).predict(values[test])
    return float(balanced_accuracy_score(names, told))

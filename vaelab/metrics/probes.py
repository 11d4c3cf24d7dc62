"""Linear probes: R² of a known factor from the latents, compared with R² from the voxels.

A linear probe (Alain & Bengio 2017, arXiv:1610.01644) is a ridge regression, evaluated on patients
that it was not fitted on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import KernelPCA
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold

from vaelab.metrics.bootstrap import Estimate, interval, over_scans, patient_weights

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Features = Callable[[Rows, Rows], tuple[Floats, Floats]]
"""(rows to fit on, rows to predict) → features of both; any fit uses the former rows alone."""

PENALTIES = np.logspace(-5, 3, 33)  # relative to the mean squared length of a row of features
FOLDS = 5


@dataclass(frozen=True)
class Probe:
    """R² of a factor, no unit: 1 is exact, 0 is as good as the mean, below 0 is worse."""

    latents: Estimate
    voxels: Estimate
    """From as many principal components of the voxels as there are latent units."""
    gain: Estimate
    """R² of latents minus R² of voxels, on the same resamples of patients."""


@dataclass(frozen=True)
class Probes:
    """Linear probes of a latent space."""

    r2: dict[str, Probe]
    """Factor → probe; of the factors that are known and vary."""
    subjects: int
    patients: int
    latent_units: int
    voxel_components_at_most: int
    voxel_block: int
    """Side of the blocks of voxels that images were averaged over."""


def probe(
    factor: Floats,
    latents: Features,
    voxels: Features,
    patients: Sequence[str],
    num_resamples: int = 1000,
    seed: int = 0,
) -> Probe:
    """Probe a factor, (N,), with 95 % intervals from a bootstrap over patients.

    The bootstrap covers the evaluation and not the fit: it does not include how another cohort
    would have trained probe and network.
    """
    weights = patient_weights(patients, num_resamples, seed)
    from_latents = cross_validated_r2(factor, latents, patients, weights)
    from_voxels = cross_validated_r2(factor, voxels, patients, weights)
    return Probe(
        interval(from_latents), interval(from_voxels), interval(from_latents - from_voxels)
    )


def cross_validated_r2(
    factor: Floats, features: Features, patients: Sequence[str], weights: Floats
) -> Floats:
    """Out-of-fold R² of ridge regression on each row of weights, (R,).

        R² = 1 - sum (y - y_hat)^2 / sum (y - mean of the fold's training part)^2

    Folds keep patients together. The penalty is chosen within the training part by leave-one-out.
    """
    error, total = np.empty(len(factor)), np.empty(len(factor))
    for fit, test in patient_folds(patients):
        x_fit, x_test = features(fit, test)
        mean = x_fit.mean(0)
        scale = np.sqrt(((x_fit - mean) ** 2).sum() / len(fit)) or 1.0
        ridge = RidgeCV(alphas=PENALTIES * len(fit)).fit((x_fit - mean) / scale, factor[fit])
        error[test] = (factor[test] - ridge.predict((x_test - mean) / scale)) ** 2
        total[test] = (factor[test] - factor[fit].mean()) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = 1 - over_scans(error, weights) / over_scans(total, weights)
    return result


def patient_folds(patients: Sequence[str]) -> list[tuple[Rows, Rows]]:
    """Rows to fit on and rows to predict, a patient never in both; always the same for a cohort.

    Patients are shuffled first: scikit-learn assigns them in turn, and if every fifth patient came
    from another scanner, one of five folds would contain all of these.
    """
    names, number = np.unique(np.asarray(patients), return_inverse=True)
    shuffled = np.random.default_rng(0).permutation(len(names))[number]
    return list(GroupKFold(min(FOLDS, len(names))).split(number, groups=shuffled))


def latent_features(mu: Floats) -> Features:
    """The posterior means themselves, (N, z)."""
    return lambda fit, test: (mu[fit], mu[test])


def voxel_features(gram: Floats, components: int) -> Features:
    """Principal components of voxels, fitted within each fold, from inner products alone.

    Args:
        gram: inner products of all pairs of images, (N, N): N images of any size fit.
        components: how many; at most as many as the images fitted on span.
    """
    cache: dict[bytes, tuple[Floats, Floats]] = {}  # every factor is probed on the same folds

    def features(fit: Rows, test: Rows) -> tuple[Floats, Floats]:
        fold = fit.tobytes() + test.tobytes()
        if fold not in cache:
            count = min(components, len(fit) - 1)
            few = count < len(fit) // 4  # ARPACK finds few of thousands in a tenth of the time
            solver = "arpack" if few else "dense"
            pca = KernelPCA(count, kernel="precomputed", eigen_solver=solver, random_state=0)
            fitted = pca.fit_transform(gram[np.ix_(fit, fit)])
            cache[fold] = fitted, pca.transform(gram[np.ix_(test, fit)])
        return cache[fold]

    return features

"""Can a known factor be read from the latents, and better than from voxels or from volume?

Probes (Alain & Bengio 2017, arXiv:1610.01644), a linear one and one that is not, judged on patients
that they were not fitted on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import KernelPCA

from vaelab.metrics.bootstrap import Estimate, interval, over_scans, patient_weights
from vaelab.metrics.regression import Regression, kernel, linear, patient_folds

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Features = Callable[[Rows, Rows], tuple[Floats, Floats]]
"""(rows to fit on, rows to predict) → their features; what is fitted sees the former alone."""


@dataclass(frozen=True)
class Probe:
    """R² of one factor, no unit: 1 is exact, 0 is guessing the mean, below 0 is worse than that."""

    latents: Estimate
    """By ridge regression, as ``voxels`` and ``gain``."""
    voxels: Estimate
    """From as many principal components of the voxels as there are latent units."""
    gain: Estimate
    """R² of latents less R² of voxels, on the same resamples of patients."""
    latents_nonlinear: Estimate
    """By kernel ridge regression, as all that follow."""
    voxels_nonlinear: Estimate
    volume: Estimate | None
    """From the known volume alone; None for a volume, and where none is known."""
    samples: int
    """Of which the factor is known."""


@dataclass(frozen=True)
class Probes:
    """What probes find in a latent space."""

    r2: dict[str, Probe]
    """Of each factor that is known and not the same for all."""
    subjects: int
    patients: int
    latent_units: int
    voxel_components_at_most: int
    voxel_block: int
    """Side of the blocks of voxels that images were averaged over."""


def probe(
    factors: Mapping[str, Floats],
    latents: Features,
    voxels: Features,
    volume: Floats | None,
    volumes: Collection[str],
    patients: Sequence[str],
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Probe]:
    """Probe factors, each (N,) with NaN where it is unknown, with 95 % intervals over patients.

    The bootstrap is of the judgement, not of the fit: it does not know how another cohort would
    have trained probe and network.

    Args:
        factors: by name.
        latents: features to judge.
        voxels: features to compare with.
        volume: log of the volume, (N,), to compare other factors with.
        volumes: names of factors that are volumes themselves.
        patients: of each sample, (N,).
        num_resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    weights = patient_weights(patients, num_resamples, seed)
    found: dict[str, Probe] = {}
    known = {name: np.isfinite(values) for name, values in factors.items()}
    for rows in {here.tobytes(): np.flatnonzero(here) for here in known.values()}.values():
        names = [name for name, here in known.items() if np.array_equal(rows, np.flatnonzero(here))]
        beside = volume is not None and bool(np.isfinite(volume[rows]).all())
        found |= _probe_rows(
            {name: factors[name][rows] for name in names},
            _at(latents, rows),
            _at(voxels, rows),
            latent_features(volume[rows, None]) if volume is not None and beside else None,
            volumes,
            [patients[row] for row in rows.tolist()],
            weights[:, rows],
        )
    return {name: found[name] for name in factors}


def _probe_rows(
    factors: Mapping[str, Floats],
    latents: Features,
    voxels: Features,
    volume: Features | None,
    volumes: Collection[str],
    patients: Sequence[str],
    weights: Floats,
) -> dict[str, Probe]:
    table = np.stack(list(factors.values()), 1)  # (N, F)

    def r2(features: Features, regression: Regression) -> dict[str, Floats]:
        values = cross_validated_r2(table, features, patients, weights, regression)
        return dict(zip(factors, values.T, strict=True))

    of_latents, of_voxels = r2(latents, linear), r2(voxels, linear)
    by_latents, by_voxels = r2(latents, kernel), r2(voxels, kernel)
    by_volume = {} if volume is None else r2(volume, kernel)
    return {
        name: Probe(
            interval(of_latents[name]),
            interval(of_voxels[name]),
            interval(of_latents[name] - of_voxels[name]),
            interval(by_latents[name]),
            interval(by_voxels[name]),
            interval(by_volume[name]) if by_volume and name not in volumes else None,
            len(table),
        )
        for name in factors
    }


def cross_validated_r2(
    factors: Floats,
    features: Features,
    patients: Sequence[str],
    weights: Floats,
    regression: Regression = linear,
) -> Floats:
    """Out-of-fold R² of a regression on each row of weights, (N, F) → (R, F) or (N,) → (R,).

    1 - sum (y - y_hat)^2 / sum (y - mean of the fold's training part)^2. Folds keep patients
    together. How much to smooth is chosen within the training part.
    """
    y = factors.reshape(len(factors), -1)
    error, total = np.empty_like(y), np.empty_like(y)
    names = np.asarray(patients)
    for fit, test in patient_folds(patients):
        x_fit, x_test = features(fit, test)
        predicted = regression(x_fit, y[fit], x_test, list(names[fit]))
        error[test] = (y[test] - predicted) ** 2
        total[test] = (y[test] - y[fit].mean(0)) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = 1 - over_scans(error, weights) / over_scans(total, weights)
    return result.reshape(len(weights), *factors.shape[1:])


def latent_features(mu: Floats) -> Features:
    """Posterior means as they are, (N, z)."""
    return lambda fit, test: (mu[fit], mu[test])


def _at(features: Features, rows: Rows) -> Features:
    """The features of some rows, counted anew."""
    return lambda fit, test: features(rows[fit], rows[test])


def voxel_features(gram: Floats, components: int) -> Features:
    """Principal components of voxels, fitted within each fold, from inner products alone.

    Args:
        gram: inner products of all pairs of images, (N, N): N images of any size fit.
        components: how many; never more than the images fitted on span.
    """
    known: dict[bytes, tuple[Floats, Floats]] = {}  # every factor is probed on the same folds

    def features(fit: Rows, test: Rows) -> tuple[Floats, Floats]:
        fold = fit.tobytes() + test.tobytes()
        if fold not in known:
            count = min(components, len(fit) - 1)
            few = count < len(fit) // 4  # ARPACK finds few of thousands in a tenth of the time
            solver = "arpack" if few else "dense"
            pca = KernelPCA(count, kernel="precomputed", eigen_solver=solver, random_state=0)
            fitted = pca.fit_transform(gram[np.ix_(fit, fit)])
            known[fold] = fitted, pca.transform(gram[np.ix_(test, fit)])
        return known[fold]

    return features

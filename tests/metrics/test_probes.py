"""Linear probes of factors that are there, that are not, and that only one side has."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from vaelab.metrics.bootstrap import patient_weights
from vaelab.metrics.probes import (
    cross_validated_r2,
    latent_features,
    patient_folds,
    probe,
    voxel_features,
)

COUNT = 80
PATIENTS = [f"p{i}" for i in range(COUNT)]
ONCE = np.ones((1, COUNT))
DRAW = np.random.default_rng(0)
MU = DRAW.normal(size=(COUNT, 4))
NOISE = DRAW.normal(size=(COUNT, 4))


def test_a_linear_factor_is_read_off_exactly() -> None:
    factor = 3 * MU[:, 0] - MU[:, 2] + 7
    assert cross_validated_r2(factor, latent_features(MU), PATIENTS, ONCE)[0] > 0.999


def test_a_factor_that_is_not_there_is_not_found() -> None:
    assert cross_validated_r2(NOISE[:, 0], latent_features(MU), PATIENTS, ONCE)[0] < 0.05


def test_a_factor_that_is_half_noise_is_half_found() -> None:
    r2 = cross_validated_r2(MU[:, 0] + NOISE[:, 0], latent_features(MU), PATIENTS, ONCE)[0]
    assert 0.3 < r2 < 0.6


def test_scans_of_a_patient_are_in_the_same_fold() -> None:
    # Every patient has four equal scans and a factor of their own: known by heart, unless folds
    # keep the patient together.
    latents = np.repeat(np.random.default_rng(1).normal(size=(20, 30)), 4, axis=0)
    factor = np.repeat(np.random.default_rng(2).normal(size=20), 4)
    patients = [f"p{i // 4}" for i in range(COUNT)]
    assert cross_validated_r2(factor, latent_features(latents), patients, ONCE)[0] < 0.1
    leaking = cross_validated_r2(factor, latent_features(latents), PATIENTS, ONCE)[0]
    assert leaking > 0.9


def test_no_fold_is_made_of_every_fifth_patient() -> None:
    folds = patient_folds([f"patient-{number:03d}" for number in range(100)])
    assert len(folds) == 5
    for _, test in folds:
        assert len(test) == 20
        assert len(set(test % 5)) > 1


def test_few_components_of_many_images_are_the_same_by_either_solver() -> None:
    voxels = DRAW.normal(size=(60, 200)) * np.linspace(3, 0.1, 200)
    fit, test = np.arange(50), np.arange(50, 60)
    few = voxel_features(voxels @ voxels.T, 5)(fit, test)  # ARPACK
    more = voxel_features(voxels @ voxels.T, 20)(fit, test)  # all of them, then cut
    for arpack, dense in zip(few, more, strict=True):
        np.testing.assert_allclose(np.abs(arpack), np.abs(dense[:, :5]), atol=1e-6)


def test_components_from_inner_products_are_those_of_the_voxels() -> None:
    voxels = DRAW.normal(size=(30, 200)) * np.linspace(3, 0.1, 200) + 5
    fit, test = np.arange(20), np.arange(20, 30)
    pca = PCA(6, svd_solver="full").fit(voxels[fit])
    components = voxel_features(voxels @ voxels.T, 6)(fit, test)
    for rows, features in zip((fit, test), components, strict=True):
        np.testing.assert_allclose(np.abs(features), np.abs(pca.transform(voxels[rows])), atol=1e-6)


def test_the_gain_of_latents_over_voxels_has_its_own_interval() -> None:
    voxels = 0.1 * DRAW.normal(size=(COUNT, 50))  # nothing of the factor
    result = probe(
        MU[:, 0],
        latent_features(MU),
        voxel_features(voxels @ voxels.T, 4),
        PATIENTS,
        num_resamples=200,
    )
    assert result.latents.low > 0.99
    assert result.voxels.high < 0.2
    assert result.gain.value == pytest.approx(result.latents.value - result.voxels.value)
    assert result.gain.low > 0.8


def test_more_components_than_images_are_cut_to_what_there_is() -> None:
    voxels = DRAW.normal(size=(COUNT, 10))
    r2 = cross_validated_r2(voxels[:, 0], voxel_features(voxels @ voxels.T, 500), PATIENTS, ONCE)
    assert r2[0] > 0.99


def test_constant_latents_find_nothing_and_break_nothing() -> None:
    weights = patient_weights(PATIENTS, 10, 0)
    r2 = cross_validated_r2(MU[:, 0], latent_features(np.zeros((COUNT, 4))), PATIENTS, weights)
    assert r2[0] == pytest.approx(0, abs=1e-9)

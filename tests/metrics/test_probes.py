"""Linear probes of factors that are there, that are not, and that only one side has."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from vaelab.metrics.bootstrap import patient_weights
from vaelab.metrics.probes import (
    Probe,
    cross_validated_r2,
    latent_features,
    probe,
    voxel_features,
)
from vaelab.metrics.regression import kernel, linear, patient_folds

COUNT = 80
PATIENTS = [f"p{i}" for i in range(COUNT)]
ONCE = np.ones((1, COUNT))
DRAW = np.random.default_rng(0)
MU = DRAW.normal(size=(COUNT, 4))
NOISE = DRAW.normal(size=(COUNT, 4))


def probed(
    factors: dict[str, np.ndarray],
    volume: np.ndarray | None = None,
    num_resamples: int = 20,
    volumes: tuple[str, ...] = ("volume",),
) -> dict[str, Probe]:
    """From MU, and from voxels that hold nothing of it."""
    voxels = 0.1 * np.random.default_rng(3).normal(size=(COUNT, 50))
    features = latent_features(MU), voxel_features(voxels @ voxels.T, 4)
    return probe(factors, *features, volume, volumes, PATIENTS, num_resamples)


def test_a_linear_factor_is_read_off_exactly() -> None:
    factor = 3 * MU[:, 0] - MU[:, 2] + 7
    assert cross_validated_r2(factor, latent_features(MU), PATIENTS, ONCE)[0] > 0.999


def test_a_factor_that_is_not_there_is_not_found() -> None:
    assert cross_validated_r2(NOISE[:, 0], latent_features(MU), PATIENTS, ONCE)[0] < 0.05


def test_a_factor_that_is_half_noise_is_half_found() -> None:
    r2 = cross_validated_r2(MU[:, 0] + NOISE[:, 0], latent_features(MU), PATIENTS, ONCE)[0]
    assert 0.3 < r2 < 0.6


def test_scans_of_a_patient_do_not_tell_on_each_other() -> None:
    # Every patient has four equal scans and a factor of their own: known by heart, unless folds
    # keep the patient together.
    of_patient = np.repeat(np.random.default_rng(1).normal(size=(20, 30)), 4, axis=0)
    factor = np.repeat(np.random.default_rng(2).normal(size=20), 4)
    patients = [f"p{i // 4}" for i in range(COUNT)]
    assert cross_validated_r2(factor, latent_features(of_patient), patients, ONCE)[0] < 0.1
    leaking = cross_validated_r2(factor, latent_features(of_patient), PATIENTS, ONCE)[0]
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
    for one, other in zip(few, more, strict=True):
        np.testing.assert_allclose(np.abs(one), np.abs(other[:, :5]), atol=1e-6)


def test_components_from_inner_products_are_those_of_the_voxels() -> None:
    voxels = DRAW.normal(size=(30, 200)) * np.linspace(3, 0.1, 200) + 5
    fit, test = np.arange(20), np.arange(20, 30)
    pca = PCA(6, svd_solver="full").fit(voxels[fit])
    found = voxel_features(voxels @ voxels.T, 6)(fit, test)
    for rows, features in zip((fit, test), found, strict=True):
        np.testing.assert_allclose(np.abs(features), np.abs(pca.transform(voxels[rows])), atol=1e-6)


def test_the_gain_of_latents_over_voxels_has_its_own_interval() -> None:
    found = probed({"unit": MU[:, 0]}, num_resamples=200)["unit"]
    assert found.latents.low > 0.99
    assert found.voxels.high < 0.2
    assert found.gain.value == pytest.approx(found.latents.value - found.voxels.value)
    assert found.gain.low > 0.8


def test_more_components_than_images_are_cut_to_what_there_is() -> None:
    voxels = DRAW.normal(size=(COUNT, 10))
    r2 = cross_validated_r2(voxels[:, 0], voxel_features(voxels @ voxels.T, 500), PATIENTS, ONCE)
    assert r2[0] > 0.99


def test_constant_latents_find_nothing_and_break_nothing() -> None:
    weights = patient_weights(PATIENTS, 10, 0)
    found = cross_validated_r2(MU[:, 0], latent_features(np.zeros((COUNT, 4))), PATIENTS, weights)
    assert found[0] == pytest.approx(0, abs=1e-9)


# --- beyond the linear map


def test_a_circle_is_read_by_the_kernel_and_not_by_the_linear_map() -> None:
    # 80 points of two units on one side of the axes and the other: the distance from 0 is even.
    points = np.random.default_rng(4).normal(size=(COUNT, 2))
    radius = np.linalg.norm(points, axis=1)
    of_map, of_kernel = (
        cross_validated_r2(radius, latent_features(points), PATIENTS, ONCE, regression)[0]
        for regression in (linear, kernel)
    )
    assert of_map < 0.1
    assert of_kernel > 0.9


def test_the_kernel_loses_little_on_a_linear_factor_and_finds_nothing_in_noise() -> None:
    factors = np.stack([MU[:, 0] - 2 * MU[:, 1], NOISE[:, 0]], 1)
    both, nothing = cross_validated_r2(factors, latent_features(MU), PATIENTS, ONCE, kernel)[0]
    assert both > 0.99
    assert nothing < 0.05


def test_the_kernel_too_is_chosen_and_judged_across_patients() -> None:
    of_patient = np.repeat(np.random.default_rng(1).normal(size=(20, 3)), 4, axis=0)
    factor = np.repeat(np.random.default_rng(2).normal(size=20), 4)
    patients = [f"p{i // 4}" for i in range(COUNT)]
    features = latent_features(of_patient)
    assert cross_validated_r2(factor, features, patients, ONCE, kernel)[0] < 0.1
    assert cross_validated_r2(factor, features, PATIENTS, ONCE, kernel)[0] > 0.8  # leaking


def test_factors_together_and_alone_have_the_same_r2() -> None:
    factors = {"one": MU[:, 0] ** 2, "other": MU[:, 1] + NOISE[:, 0]}
    together = probed(factors)
    for name, values in factors.items():
        (alone,) = probed({name: values}).values()
        for side in ("latents", "latents_nonlinear", "voxels_nonlinear"):
            mine, theirs = getattr(alone, side), getattr(together[name], side)
            assert mine.value == pytest.approx(theirs.value, abs=1e-9)


def test_what_volume_tells_already_is_told_beside_all_but_volumes() -> None:
    volume = MU[:, 0]
    found = probed({"volume": volume, "extent": volume**3, "place": MU[:, 1]}, volume)
    assert found["volume"].volume is None
    assert found["extent"].volume is not None
    assert found["extent"].volume.value > 0.9  # a curve of volume, and nothing else
    assert found["place"].volume is not None
    assert found["place"].volume.value < 0.1
    assert probed({"place": MU[:, 1]})["place"].volume is None


def test_a_factor_is_judged_on_the_samples_that_have_it() -> None:
    partly = 2 * MU[:, 0]
    partly[::4] = np.nan
    found = probed({"all": MU[:, 0], "partly": partly}, volume=MU[:, 2])
    assert (found["all"].samples, found["partly"].samples) == (COUNT, COUNT * 3 // 4)
    assert found["partly"].latents.value > 0.99
    assert list(found) == ["all", "partly"]

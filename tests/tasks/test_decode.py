"""Claims about what a trained run makes of places in its latent space."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

from vaelab.data.mri.brats import BraTSDataModule
from vaelab.errors import UserError
from vaelab.latents.paths import (
    Means,
    farthest,
    interpolation,
    linear,
    prior_samples,
    spherical,
    traversal,
)
from vaelab.latents.table import read_latents
from vaelab.models.resnet3d import ResNet3dVAE
from vaelab.tasks.decode import Decode

from ..conftest import CLI

QUICK = ("task.num_samples=2", "task.steps=3", "task.units=2")


def test_volumes_are_decoded_on_the_run_s_grid_with_its_centre_at_zero(cli: CLI, run_3d: Path):
    assert cli("task=decode", f"run_dir={run_3d}", *QUICK) == 0
    folder = run_3d / "decoded"
    assert sorted(path.name for path in folder.glob("*.png")) == [
        "interpolation.png", "samples.png", "traversal.png",
    ]  # fmt: skip
    assert not (folder / "traversal").exists()  # volumes of it are not asked for
    assert len(list((folder / "interpolation").rglob("*.nii.gz"))) == 3 * 4
    z = load_file(folder / "z.safetensors")
    assert {name: part.shape for name, part in z.items()} == {
        "samples": (1, 2, 8), "interpolation": (1, 3, 8), "traversal": (2, 3, 8),
    }  # fmt: skip
    model = ResNet3dVAE(4, base_filters=4, z_dim=8, roi_size=[16, 16, 16]).eval()
    weights = run_3d / "checkpoints" / "vae_best.pth"
    model.load_state_dict(torch.load(weights, weights_only=True))
    with torch.inference_mode():
        x_hat = model.decode(torch.from_numpy(z["samples"][0, 1:])).numpy()[0]
    for channel, modality in enumerate(("t1c", "t1n", "t2f", "t2w")):
        image = nibabel.load(folder / "samples" / "samples-1" / f"samples-1-{modality}.nii.gz")
        np.testing.assert_allclose(np.asarray(image.dataobj), x_hat[channel], atol=1e-4)
        assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
        assert image.header.get_zooms() == (12, 12, 12)
        assert image.header.get_xyzt_units()[0] == "mm"
        np.testing.assert_allclose(image.header.get_qform(), image.header.get_sform(), atol=1e-4)
        np.testing.assert_allclose(image.affine @ [7.5, 7.5, 7.5, 1], [0, 0, 0, 1], atol=1e-4)


def test_two_encoded_subjects_are_the_ends_of_an_interpolation(
    cli: CLI, run_2d: Path, capfd: pytest.CaptureFixture[str]
):
    name = f"run_dir={run_2d}"
    assert cli("task=decode", name, *QUICK, "task.between=[nobody,noone]") == 1
    assert "task.between: nobody, noone not among" in capfd.readouterr().out
    assert cli("task=encode", name, "task.umap=false") == 0
    latents = read_latents(run_2d / "latents")
    pair = [latents.ids[0], latents.ids[-1]]  # of two splits
    between = "task.between=[" + ",".join(f"'{one}'" for one in pair) + "]"
    assert cli("task=decode", name, *QUICK, between) == 0
    z = load_file(run_2d / "decoded" / "z.safetensors")["interpolation"][0]
    np.testing.assert_allclose(z[[0, 2]], latents.mu[[0, -1]], atol=1e-6)
    np.testing.assert_allclose(z[1], (z[0] + z[2]) / 2, atol=1e-6)
    with safe_open(run_2d / "decoded" / "z.safetensors", "numpy") as file:
        about = json.loads(file.metadata()["vaelab"])
    assert about["seed"] == 0
    assert about["weights_sha256"] == latents.about["weights_sha256"]
    assert not list((run_2d / "decoded").rglob("*.nii.gz"))


def test_a_table_of_other_weights_is_not_used(
    cli: CLI, run_2d: Path, capfd: pytest.CaptureFixture[str]
):
    assert cli("task=encode", f"run_dir={run_2d}", "task.umap=false") == 0
    weights = next((run_2d / "checkpoints").glob("*.pth"))
    state = torch.load(weights, weights_only=True)
    state["mu_head.bias"] += 1
    torch.save(state, weights)
    assert cli("task=decode", f"run_dir={run_2d}", *QUICK) == 0
    assert "is of other weights" in capfd.readouterr().out
    z = load_file(run_2d / "decoded" / "z.safetensors")["traversal"]
    own = read_latents(run_2d / "latents").in_split("val")
    np.testing.assert_allclose(z[:, 1].mean(0), own.mu.mean(0) + 1, atol=1e-5)


def test_the_report_shows_latents_and_what_was_decoded(cli: CLI, run_2d: Path):
    name = f"run_dir={run_2d}"
    assert cli("task=evaluate", name, "task.num_resamples=5") == 0
    assert cli("task=encode", name, "task.umap=false") == 0
    assert cli("task=decode", name, *QUICK) == 0
    assert cli("task=report", name, "task.max_cases=2") == 0
    page = (run_2d / "report.html").read_text()
    for caption in ("principal components", "Samples from the prior", "One latent unit at a time"):
        assert caption in page
    assert "UMAP" not in page.split("<pre")[0]


def test_samples_have_the_prior_s_variance_and_come_again_with_their_seed():
    drawn = prior_samples(200, 50, 0.5, seed=1).z
    # 10,000 draws: the standard error of the variance is 0.25 * sqrt(2 / 10000).
    assert float(drawn.var()) == pytest.approx(0.25, abs=4 * 0.0036)
    assert np.array_equal(drawn, prior_samples(200, 50, 0.5, seed=1).z)
    assert not np.array_equal(drawn, prior_samples(200, 50, 0.5, seed=2).z)
    assert np.array_equal(2 * drawn, prior_samples(200, 50, 1.0, seed=1).z)


def test_a_way_on_the_sphere_keeps_its_length():
    a, b = np.array([2.0, 0]), np.array([0, 2.0])
    np.testing.assert_allclose(linear(a, b, 0.5), [1, 1])
    np.testing.assert_allclose(spherical(a, b, 0.5), [2**0.5, 2**0.5])
    for share, end in ((0.0, a), (1.0, b)):
        np.testing.assert_allclose(spherical(a, b, share), end, atol=1e-12)
    # Where there is no angle, or none that is unique, it is the straight line.
    for other in (3 * a, -a, 0 * a):
        np.testing.assert_allclose(spherical(a, other, 0.5), (a + other) / 2)
    start, end = Means(["a"], a[None]), Means(["b"], b[None])
    assert interpolation(start, end, 3, "spherical").z.shape == (1, 3, 2)


def test_a_traversal_moves_the_most_active_unit_first_and_nothing_else():
    mu = np.array([[1, 0, 5], [1, 2, 5.2], [1, 4, 5.1]], np.float32)  # sd 0, 2, 0.1
    places = traversal(Means(["a", "b", "c"], mu), units=2, steps=3, reach=3, split="val")
    assert places.rows == ["unit 1", "unit 2"]
    assert places.columns == ["-3 sd", "mean", "+3 sd"]
    np.testing.assert_allclose(places.z[0], [[1, -4, 5.1], [1, 2, 5.1], [1, 8, 5.1]], atol=1e-5)
    np.testing.assert_allclose(places.z[1, 2], [1, 2, 5.4], atol=1e-5)
    # Variances 4 and 0.01: only the first is above Burda's threshold of 0.01, within rounding.
    assert "of 3 units active" in places.title


def test_the_farthest_pair_is_found():
    mu = np.array([[0, 0], [3, 0], [0, 4.0]])
    assert farthest(Means(["a", "b", "c"], mu)) == ["b", "c"]
    assert farthest(Means(["a"], mu[:1])) == []


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "AIR"])
def test_the_affine_has_the_axes_and_voxels_of_the_run(orientation: str, tmp_path: Path):
    folders = (str(tmp_path), str(tmp_path / "splits"), str(tmp_path / "cache"))
    data = BraTSDataModule(*folders, orientation=orientation, spacing=(1, 2, 3))
    affine = data.affine((16, 32, 48))
    assert nibabel.aff2axcodes(affine) == tuple(orientation)
    np.testing.assert_allclose(nibabel.affines.voxel_sizes(affine), [1, 2, 3])
    np.testing.assert_allclose(affine @ [7.5, 15.5, 23.5, 1], [0, 0, 0, 1], atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": -1}, r"task\.num_samples=-1"),
        ({"temperature": 0}, r"task\.temperature=0"),
        ({"between": ["a"]}, r"task\.between=\['a'\]"),
        ({"path": "curved"}, r"task\.path=curved"),
        ({"steps": 1}, r"task\.steps=1"),
        ({"save_volumes": ["all"]}, r"task\.save_volumes=\['all'\]"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict, message: str):
    with pytest.raises(UserError, match=message):
        Decode(**arguments)

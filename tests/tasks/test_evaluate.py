"""What task=evaluate writes, on a run that was trained by the command line."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from vaelab.data.phantoms.mri import PhantomMRI

from ..conftest import CLI, TINY_MRI


@pytest.fixture
def run_dir(split_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(split_run, tmp_path / "run"))


def in_range(found: dict[str, Any]) -> bool:
    low, high = found["average_precision_bracket"]
    found_share = found["lesions_found"] / found["lesions"]
    return low <= found["average_precision"] <= high and found["detection_rate"] == found_share


def metrics_of(run_dir: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run_dir / "metrics.json").read_text())
    return content


def test_all_test_images_and_the_balanced_split_are_judged(cli: CLI, run_dir: Path):
    assert cli("task=evaluate", f"run_dir={run_dir}", "task.num_resamples=20") == 0
    metrics = metrics_of(run_dir)
    assert metrics["detection"]["counts"] == {"normal": 4, "sick": 4}
    assert metrics["detection_all"]["counts"] == {"normal": 6, "sick": 6}
    by_group = metrics["detection_by_group"]
    assert sum(group["counts"]["sick"] for group in by_group.values()) == 6
    low, high = metrics["detection_all"]["intervals_95_percent"]["auroc"]
    assert low <= metrics["detection_all"]["auroc"] <= high
    with (run_dir / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows].count("1") == 6
    with (run_dir / "splits" / "test_full.csv").open(newline="") as file:
        split = [row["id"] for row in csv.DictReader(file)]
    assert [row["id"] for row in rows] == split  # though one half of it was judged first
    assert all(("PNEUMONIA" in row["id"]) == (row["label"] == "1") for row in rows)


def test_detection_is_judged_within_the_columns_that_the_dataset_names(
    cli: CLI, run_dir: Path, tmp_path: Path
):
    with (run_dir / "splits" / "test_full.csv").open(newline="") as file:
        records = list(csv.DictReader(file))
    table = tmp_path / "images.csv"
    rows = [f"{r['id']},{'AP' if r['label'] == '1' else 'PA'}" for r in records]
    table.write_text("\n".join(["id,view", *rows]))
    groups = ("dataset.groups=[view]", f"dataset.groups_table={table}", "task.num_resamples=20")
    assert cli("task=evaluate", f"run_dir={run_dir}", *groups) == 0
    view = metrics_of(run_dir)["detection_within"]["view"]
    assert view["label_alone"] == 1  # every sick image is AP, and no normal one
    assert view["groups"]["AP"] == {"normal": 0, "sick": 6, "auroc": None}
    assert cli("task=report", f"run_dir={run_dir}", "task.max_cases=2") == 0
    assert "at least as good as the score: view alone" in (run_dir / "report.html").read_text()


def test_decisions_are_calibrated_on_patients_set_aside_for_it(cli: CLI, run_dir: Path):
    assert cli("task=evaluate", f"run_dir={run_dir}", "task.alpha=0.5") == 0
    with (run_dir / "splits" / "calibration.csv").open(newline="") as file:
        patients = {row["patient"] for row in csv.DictReader(file)}
    calibration = json.loads((run_dir / "calibration.json").read_text())
    assert calibration["count"] == len(patients)  # one image of each
    assert calibration["score"] == "SquaredError"
    assert len(calibration["seen"]["latents"]) == len(patients)
    shift = metrics_of(run_dir)["shift"]
    own = f"{len(patients)} normal images of the run's own calibration split"
    assert (shift["calibration"], shift["alarm"], shift["enough_images"]) == (own, False, False)
    with (run_dir / "splits" / "test_full.csv").open(newline="") as file:
        normal = {row["patient"] for row in csv.DictReader(file) if row["label"] == "0"}
    assert shift["images"] == len(normal)  # the sick ones are not compared
    decisions = metrics_of(run_dir)["decisions"]
    n = len(patients)
    assert decisions["expected_false_alarm_rate"] == (n + 1) // 2 / (n + 1)
    for name in ("train", "val", "test_full"):
        with (run_dir / "splits" / f"{name}.csv").open(newline="") as file:
            assert not patients & {row["patient"] for row in csv.DictReader(file)}


def test_x_rays_with_masks_are_judged_by_pixel_on_half_of_the_test_patients(
    cli: CLI, run_dir: Path
):
    assert cli("task=evaluate", f"run_dir={run_dir}", "task.num_resamples=20") == 0
    found = metrics_of(run_dir)["localisation"]
    assert in_range(found)
    assert found["unit"] == "pixel"
    assert found["threshold_from"] == "half of the test patients"
    assert found["judged_on"] == "the other half of the test patients"
    assert found["threshold_images"] + found["judged_images"] == 12
    assert found["lesions"] > 0
    assert cli("task=report", f"run_dir={run_dir}", "task.max_cases=2") == 0
    page = (run_dir / "report.html").read_text()
    assert set(found["baselines"]) == {
        "blind", "fixed centre weight", "bright x-ray", "dark x-ray",
        "average mask of other patients", "the run's own map of another patient",
    }  # fmt: skip
    blind = found["baselines"]["blind"]
    assert blind["average_precision"] == pytest.approx(found["lesion_share"])
    for row in (
        *found["baselines"],
        "Do the maps show lesions?",
        "Pixel average precision",
        "Dice (threshold from half of the test patients)",
        "Lesions found",
    ):
        assert row.replace("'", "&#39;") in page


def test_x_rays_without_masks_are_not_judged_by_pixel(
    cli: CLI, run_dir: Path, phantoms: str, tmp_path: Path
):
    (tree,) = Path(phantoms.split("=")[1]).glob("phantom_xray-*-12train-6test-*")
    bare = shutil.copytree(tree, tmp_path / "bare", ignore=shutil.ignore_patterns("masks"))
    as_kaggle = ("dataset.phantoms=null", f"dataset.root_dir={bare}")
    assert cli("task=evaluate", f"run_dir={run_dir}", "task.num_resamples=20", *as_kaggle) == 0
    assert "localisation" not in metrics_of(run_dir)


def test_volumes_with_a_segmentation_are_judged_by_voxel(cli: CLI, run_3d: Path):
    assert cli("task=evaluate", f"run_dir={run_3d}") == 0
    metrics = metrics_of(run_3d)
    found = metrics["localisation"]
    assert in_range(found)
    assert (found["unit"], found["threshold_from"]) == ("voxel", "train split")
    assert (found["judged_on"], found["judged_images"]) == ("val split", metrics["samples"])
    assert found["lesions"] > 0
    for name in ("t1c", "t1n", "t2f", "t2w"):
        assert {f"bright {name}", f"dark {name}"} <= set(found["baselines"])


def test_the_fused_score_is_fitted_before_it_judges(cli: CLI, run_dir: Path):
    assert cli("task=evaluate", f"run_dir={run_dir}", "score=fused") == 0
    assert metrics_of(run_dir)["score"] == "Fused"


def test_an_untrained_folder_is_refused(cli: CLI, capfd: pytest.CaptureFixture[str]):
    assert cli("task=evaluate", "dataset=phantom_xray", "model=conv2d_vae") == 1
    assert "name a trained run with run_dir" in capfd.readouterr().out


def test_an_alpha_outside_0_and_1_is_refused(
    cli: CLI, run_dir: Path, capfd: pytest.CaptureFixture[str]
):
    assert cli("task=evaluate", f"run_dir={run_dir}", "task.alpha=1.5") == 1
    assert "task.alpha=1.5" in capfd.readouterr().out


def test_the_latent_space_is_taken_apart(cli: CLI, run_dir: Path):
    assert cli("task=evaluate", f"run_dir={run_dir}", "task.importance_samples=3") == 0
    latent = metrics_of(run_dir)["latent"]
    assert sum(latent["kl_nats_per_unit"]) == pytest.approx(latent["kl_nats_per_sample"], rel=1e-3)
    parts = latent["kl_decomposition_nats"]
    assert parts["samples"] == 12
    assert parts["mutual_information"] <= parts["mutual_information_limit"] + 1e-9
    assert parts["mutual_information_limit"] == pytest.approx(math.log(12))
    terms = ("mutual_information", "total_correlation", "dimension_wise_kl")
    # 2048 draws of a few nats' spread.
    total = sum(parts[name] for name in terms)
    assert total == pytest.approx(latent["kl_nats_per_sample"], rel=0.1, abs=0.3)
    bound = latent["log_likelihood_nats"]
    assert bound["dimensions"] == 32 * 32
    assert bound["gain"] > 0  # Jensen's inequality: the bound is above the mean log weight
    assert (run_dir / "figures" / "kl_decomposition.png").is_file()


def test_the_elbo_of_drawn_z_is_the_objective_up_to_its_constant(cli: CLI, run_dir: Path):
    assert cli("task=evaluate", f"run_dir={run_dir}", "task.importance_samples=50") == 0
    metrics = metrics_of(run_dir)
    bound, objective = metrics["latent"]["log_likelihood_nats"], metrics["objective"]
    # recon is of z = mu, and drawn z are worse by what their noise does: the ELBO is no higher.
    of_mu = -(objective["recon_sum"] + objective["kl_sum_nats"]) / metrics["samples"]
    of_mu -= bound["dimensions"] / 2 * math.log(math.pi)
    assert bound["elbo"] <= of_mu + 1
    assert bound["elbo"] == pytest.approx(of_mu, rel=0.1)


def test_the_bound_on_the_likelihood_can_be_left_out(cli: CLI, run_dir: Path):
    assert cli("task=evaluate", f"run_dir={run_dir}", "task.importance_samples=0") == 0
    metrics = metrics_of(run_dir)
    assert "log_likelihood_nats" not in metrics["latent"]
    assert "probes" not in metrics  # X-rays have no table of factors
    (similarity,) = metrics["reconstruction"]["ssim_per_channel"].values()
    assert 0 < similarity <= 1
    assert not [name for name in metrics["reconstruction"] if "brain" in name]


def test_a_negative_number_of_importance_samples_is_refused(
    cli: CLI, run_dir: Path, capfd: pytest.CaptureFixture[str]
):
    assert cli("task=evaluate", f"run_dir={run_dir}", "task.importance_samples=-1") == 1
    assert "task.importance_samples=-1" in capfd.readouterr().out


def test_known_factors_of_volumes_are_probed_and_the_brain_is_judged_apart(
    cli: CLI, phantoms: str, tmp_path: Path
):
    cohort = ("dataset.phantoms.num_patients=12", "dataset.phantoms.num_followups=2")
    arguments = (*TINY_MRI, *cohort, phantoms, "~task.then", "train.max_epochs=1")
    assert cli(*arguments, "run_dir=mri") == 0
    assert cli("task=evaluate", "run_dir=mri", "task.num_resamples=20") == 0
    metrics = metrics_of(tmp_path / "mri")
    probes = metrics["probes"]
    assert (probes["subjects"], probes["patients"], probes["voxel_block"]) == (14, 12, 1)
    of_table = ["tumour_volume_mm3", "head_size", "time_point"]
    of_seg = ["segmented_mm3", "centre_x_mm", "centre_y_mm", "centre_z_mm", "extent_mm", "depth_mm"]
    assert [name for name in probes["r2"] if name in of_table + of_seg] == of_table + of_seg
    for name, factor in probes["r2"].items():
        assert (factor["volume"] is None) == name.endswith("_mm3")
        for side in ("latents", "voxels", "gain", "latents_nonlinear", "voxels_nonlinear"):
            assert factor[side]["low"] <= factor[side]["high"]
        assert factor["latents"]["value"] <= 1
    # How far a tumour reaches is its volume above all, and where it is is not.
    assert probes["r2"]["extent_mm"]["volume"]["value"] > 0.3
    assert probes["r2"]["centre_y_mm"]["volume"]["value"] < 0.3
    # Head size is plain to see in voxels.
    assert probes["r2"]["head_size"]["voxels"]["value"] > 0
    found = metrics["reconstruction"]
    assert list(found["psnr_db_brain_per_channel"]) == ["t1c", "t1n", "t2f", "t2w"]
    # The background is a constant, which any network reconstructs better than a brain.
    for name, value in found["mse_per_channel"].items():
        assert found["mse_brain_per_channel"][name] > value
    assert (tmp_path / "mri" / "figures" / "probes.png").is_file()


def test_real_data_are_probed_by_their_segmentations_alone(cli: CLI, phantoms: str, tmp_path: Path):
    source = PhantomMRI(12, 2, voxel_size=6.0).prepare(phantoms.split("=", 1)[1])
    shutil.copytree(source, tmp_path / "cohort", ignore=shutil.ignore_patterns("factors.csv"))
    plain = [one for one in TINY_MRI if "phantom" not in one]
    command = ("dataset=brats_men", f"dataset.root_dir={tmp_path / 'cohort'}", *plain)
    command += ("dataset.num_workers=0", "~task.then", "train.max_epochs=1")
    assert cli(*command, "run_dir=real") == 0
    assert cli("task=evaluate", "run_dir=real", "task.num_resamples=20") == 0
    probes = metrics_of(tmp_path / "real")["probes"]
    assert {"segmented_mm3", "centre_x_mm", "depth_mm"} <= set(probes["r2"])
    assert "head_size" not in probes["r2"]
    assert (probes["subjects"], probes["patients"]) == (14, 12)

"""Both systems, from the command line to the picture."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from vaelab.runs.history import read_history

from .conftest import CLI, TINY_MRI, TINY_XRAY


def only_run(folder: Path) -> Path:
    (run_dir,) = [path for path in (folder / "outputs").iterdir() if path.is_dir()]
    return run_dir


def split_ids(run_dir: Path, name: str) -> set[str]:
    with (run_dir / "splits" / f"{name}.csv").open(newline="") as file:
        return {row["id"] for row in csv.DictReader(file)}


def test_the_3d_system_trains_judges_and_shows(cli: CLI, phantoms: str, tmp_path: Path):
    assert cli(*TINY_MRI, phantoms) == 0
    run_dir = only_run(tmp_path)
    assert run_dir.name.endswith("_phantom_mri")
    for name in (
        "config_resolved.yaml",
        "train.log",
        "logs/metrics.csv",
        "checkpoints/last.ckpt",
        "checkpoints/vae_best.pth",
        "splits/train.csv",
        "splits/val.csv",
        "cache",
        "metrics.json",
        "scores.csv",
        "figures/learning_curves.png",
        "figures/kl_per_unit.png",
        "report_card.png",
        "report.html",
    ):
        assert (run_dir / name).exists(), name
    assert len(list((run_dir / "recon" / "epoch_0").glob("*.png"))) == 1
    assert not split_ids(run_dir, "train") & split_ids(run_dir, "val")
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["samples"] == len(split_ids(run_dir, "val"))
    assert set(metrics["reconstruction"]["mse_per_channel"]) == {"t1c", "t1n", "t2f", "t2w"}
    tumour, rest = metrics["tumour"]["mse_tumour"], metrics["tumour"]["mse_rest"]
    assert metrics["tumour"]["ratio"] == pytest.approx(tumour / rest)
    # The mean over all voxels lies between those within and without.
    assert min(tumour, rest) < metrics["reconstruction"]["mse"] < max(tumour, rest)
    history = read_history(run_dir / "logs" / "metrics.csv")
    assert history["train/beta"] == [0.0, 1.0]
    best = min(history["val/neg_elbo"])
    assert metrics["objective"]["neg_elbo_sum"] == pytest.approx(best, rel=1e-4)
    Image.open(run_dir / "report_card.png").close()


def test_the_2d_system_trains_judges_and_shows(cli: CLI, phantoms: str, tmp_path: Path):
    assert cli(*TINY_XRAY, phantoms) == 0
    run_dir = only_run(tmp_path)
    weights = torch.load(run_dir / "checkpoints" / "vae_m4_best.pth", weights_only=True)
    assert weights["mu_head.weight"].shape[0] == 8
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["detection"]["counts"] == {"normal": 6, "sick": 6}
    with (run_dir / "scores.csv").open(newline="") as file:
        rows = [(row["label"], float(row["score"])) for row in csv.DictReader(file)]
    normal, sick = ([score for label, score in rows if label == kind] for kind in "01")
    # P(sick > normal) + P(sick = normal) / 2 over the 36 pairs: Hanley & McNeil 1982.
    pairs = [(s > n) + (s == n) / 2 for s in sick for n in normal]
    assert metrics["detection"]["auroc"] == pytest.approx(sum(pairs) / 36)
    for name in ("roc.png", "score_histogram.png"):
        assert (run_dir / "figures" / name).exists()
    learned_from = split_ids(run_dir, "train") | split_ids(run_dir, "val")
    assert all("/NORMAL/" in identifier for identifier in learned_from)

    # A task in the run folder takes the run's own config, from any folder, and leaves it as it is.
    saved = (run_dir / "config_resolved.yaml").read_text()
    (run_dir / "report_card.png").unlink()
    assert cli("task=report_card", f"run_dir={run_dir}", "task.num_cases=2") == 0
    assert (run_dir / "report_card.png").exists()
    assert cli("task=evaluate", f"run_dir={run_dir}", "score=kl") == 0
    again = json.loads((run_dir / "metrics.json").read_text())
    assert again["score"] == "KL"
    assert again["reconstruction"] == metrics["reconstruction"]  # to the bit: test_equality.py
    assert (run_dir / "config_resolved.yaml").read_text() == saved


def test_a_resumed_run_ends_where_an_uninterrupted_one_of_the_same_seed_does(
    cli: CLI, phantoms: str, tmp_path: Path
):
    task = "~task.then"
    assert cli(*TINY_MRI, phantoms, task, "run_dir=whole", "train.max_epochs=3") == 0
    assert cli(*TINY_MRI, phantoms, task, "run_dir=parts", "train.max_epochs=1") == 0
    assert cli("resume=parts", "train.max_epochs=3") == 0
    history = read_history(tmp_path / "parts" / "logs" / "metrics.csv")
    assert history["epoch"] == [0, 1, 2]
    whole = read_history(tmp_path / "whole" / "logs" / "metrics.csv")
    assert history["train/beta"] == whole["train/beta"]
    assert {key: values for key, values in history.items() if key != "step"} == {
        key: values for key, values in whole.items() if key != "step"
    }
    one, two = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "parts")
    )
    assert all(torch.equal(one[key], two[key]) for key in one)
    one, two = (
        torch.load(tmp_path / name / "checkpoints" / "vae_best.pth", weights_only=True)
        for name in ("whole", "parts")
    )
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert OmegaConf.load(tmp_path / "parts" / "config_resolved.yaml").train.max_epochs == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dataset=brats_men"], "dataset.root_dir is not set"),
        (["dataset=brats_men", "dataset.root_dir=nowhere"], "does not exist"),
        ([*TINY_MRI, "dataset.roi_size=[20,16,16]"], "divisible by 16"),
        ([*TINY_MRI, "dataset.val_split=1"], "dataset.val_split=1"),
        ([*TINY_MRI, "train.kl_beta=-1"], "train.kl_beta=-1"),
        ([*TINY_MRI, "train.max_epochs=0"], "train.max_epochs=0"),
        ([*TINY_MRI, "train.lr=abc"], "train.lr"),
        ([*TINY_MRI, "train.max_epochs=2.5"], "train.max_epochs"),
        ([*TINY_MRI, "model.norm=BATCH"], "model.norm=BATCH"),
        (["model=monai_vae", "+model.base_filters=4"], "model.base_filters=4: MonaiVAE takes only"),
        ([*TINY_MRI, "hardware.precision=8"], "hardware.precision=8"),
        ([*TINY_MRI, "train.monitor=val/nothing"], "val/nothing"),
        (["task=evaluate"], "run_dir"),
        (["task=evaluate", "run_dir=nowhere"], "run_dir=nowhere"),
        (["resume=nowhere"], "resume=nowhere"),
    ],
)
def test_bad_input_is_one_sentence_and_a_failure(
    cli: CLI,
    phantoms: str,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
):
    shared = [] if any("root_dir" in a for a in arguments) or len(arguments) < 3 else [phantoms]
    assert cli(*arguments, *shared) == 1
    captured = capfd.readouterr()
    shown = captured.out + captured.err
    assert message in shown
    assert "Traceback" not in shown


def test_an_unknown_option_lists_the_choices(cli: CLI, capfd: pytest.CaptureFixture[str]):
    assert cli("model=resnet4d") == 1
    assert "resnet3d_vae" in capfd.readouterr().err


def test_a_run_is_not_written_over(
    cli: CLI, phantoms: str, run_3d: Path, capfd: pytest.CaptureFixture[str]
):
    before = (run_3d / "checkpoints" / "last.ckpt").read_bytes()
    arguments = (*TINY_MRI, phantoms, "~task.then", "train.max_epochs=1")
    assert cli(*arguments, f"run_dir={run_3d}") == 1
    assert "already holds a run" in capfd.readouterr().out
    assert (run_3d / "checkpoints" / "last.ckpt").read_bytes() == before


def test_help_names_groups_options_and_examples():
    command = [sys.executable, "-m", "vaelab.run", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for words in (
        "annealing: constant, cyclical, linear",
        "dataset=chest_xray model=conv2d_vae",
        "resume=",
    ):
        assert words in shown


def test_a_failure_in_a_process_of_its_own_exits_non_zero(tmp_path: Path):
    unfit = ("dataset=phantom_xray", "model=resnet3d_vae")  # told before the long imports
    command = [sys.executable, "-m", "vaelab.run", *unfit, "dataset.root_dir=absent"]
    ended = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, check=False, env=None
    )
    assert ended.returncode == 1

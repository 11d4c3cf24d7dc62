"""What task=evaluate writes, on a run that was trained through the door."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from ..conftest import TINY_XRAY, Door

UNTRAINED = ("~task.then", "train.max_epochs=1", "dataset.calibration_split=0.3")


@pytest.fixture
def run_dir(door: Door, phantoms: str, tmp_path: Path) -> Path:
    arguments = (*TINY_XRAY, phantoms, *UNTRAINED, "dataset.test_per_class=4", "run_dir=run")
    assert door(*arguments) == 0
    return tmp_path / "run"


def metrics_of(run_dir: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run_dir / "metrics.json").read_text())
    return content


def test_all_test_images_and_the_balanced_split_are_judged(door: Door, run_dir: Path):
    assert door("task=evaluate", f"run_dir={run_dir}", "task.num_resamples=20") == 0
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


def test_decisions_are_calibrated_on_patients_set_aside_for_it(door: Door, run_dir: Path):
    assert door("task=evaluate", f"run_dir={run_dir}", "task.alpha=0.5") == 0
    with (run_dir / "splits" / "calibration.csv").open(newline="") as file:
        patients = {row["patient"] for row in csv.DictReader(file)}
    calibration = json.loads((run_dir / "calibration.json").read_text())
    assert calibration["count"] == len(patients)  # one image of each
    assert calibration["score"] == "SquaredError"
    decisions = metrics_of(run_dir)["decisions"]
    n = len(patients)
    assert decisions["expected_false_alarm_rate"] == (n + 1) // 2 / (n + 1)
    for name in ("train", "val", "test_full"):
        with (run_dir / "splits" / f"{name}.csv").open(newline="") as file:
            assert not patients & {row["patient"] for row in csv.DictReader(file)}


def test_the_fused_score_is_fitted_before_it_judges(door: Door, run_dir: Path):
    assert door("task=evaluate", f"run_dir={run_dir}", "score=fused") == 0
    assert metrics_of(run_dir)["score"] == "Fused"


def test_an_untrained_folder_is_refused(door: Door, capfd: pytest.CaptureFixture[str]):
    assert door("task=evaluate", "dataset=phantom_xray", "model=conv2d_vae") == 1
    assert "name a trained run with run_dir" in capfd.readouterr().out


def test_an_alpha_outside_0_and_1_is_refused(
    door: Door, run_dir: Path, capfd: pytest.CaptureFixture[str]
):
    assert door("task=evaluate", f"run_dir={run_dir}", "task.alpha=1.5") == 1
    assert "task.alpha=1.5" in capfd.readouterr().out

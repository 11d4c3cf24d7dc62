"""What task=robustness writes and refuses, on runs that were trained by the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vaelab.errors import UserError
from vaelab.evaluation.shifts import SHIFTS, Gamma
from vaelab.tasks.robustness import Robustness

from ..conftest import CLI


@pytest.fixture
def run_dir(split_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(split_run, tmp_path / "run"))


def content_of(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_the_clean_row_is_what_evaluate_says(cli: CLI, run_dir: Path):
    assert cli("task=evaluate", f"run_dir={run_dir}", "task.num_resamples=1") == 0
    assert cli("task=robustness", f"run_dir={run_dir}") == 0
    metrics, result = (content_of(run_dir / name) for name in ("metrics.json", "robustness.json"))
    judged = metrics["detection_all"]
    assert result["counts"] == judged["counts"]
    assert result["clean"] == {
        "auroc": judged["auroc"],
        "sensitivity_at_specificity_95": judged["sensitivity_at_specificity_95"],
        "false_alarm_rate": metrics["decisions"]["false_alarm_rate"],
    }
    table = (run_dir / "robustness.md").read_text()
    assert f"| clean           | {judged['auroc']:.3f} |" in table
    assert list(result["shifts"]) == list(SHIFTS)
    for name in SHIFTS:
        assert f"| {name} " in table


def test_mean_and_worst_are_over_the_shifts_asked_for(cli: CLI, run_dir: Path):
    names = ["mixed", "gamma_1.4"]
    assert cli("task=robustness", f"run_dir={run_dir}", f"task.shifts=[{','.join(names)}]") == 0
    result = content_of(run_dir / "robustness.json")
    aurocs = [result["shifts"][name]["auroc"] for name in names]
    assert result["mean"]["auroc"] == np.mean(aurocs)
    assert result["worst"]["auroc"] == min(aurocs)
    assert result["shifts"][result["worst_shift"]]["auroc"] == min(aurocs)
    # Nobody has calibrated this run.
    assert result["clean"]["false_alarm_rate"] is None
    assert result["worst"]["false_alarm_rate"] is None


def test_a_machine_that_changes_nothing_gives_the_clean_row(
    cli: CLI, run_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("vaelab.tasks.robustness.SHIFTS", {"nothing": Gamma(1)})
    monkeypatch.setattr("vaelab.evaluation.shifts.SHIFTS", {"nothing": Gamma(1)})
    assert cli("task=robustness", f"run_dir={run_dir}") == 0
    result = content_of(run_dir / "robustness.json")
    assert result["shifts"]["nothing"] == result["clean"]


def test_a_shift_is_judged_alike_alone_and_among_others(cli: CLI, run_dir: Path):
    found = []
    for shifts in ("[mixed]", "[blur,mixed]"):
        assert cli("task=robustness", f"run_dir={run_dir}", f"task.shifts={shifts}") == 0
        found.append(content_of(run_dir / "robustness.json")["shifts"]["mixed"])
    assert found[0] == found[1]


def test_a_calibration_of_another_score_counts_no_false_alarms(
    cli: CLI, run_dir: Path, capfd: pytest.CaptureFixture[str]
):
    assert cli("task=evaluate", f"run_dir={run_dir}", "task.num_resamples=1") == 0
    arguments = ("task=robustness", f"run_dir={run_dir}", "score=kl", "task.shifts=[blur]")
    assert cli(*arguments) == 0
    assert "there are no p-values and flags" in capfd.readouterr().out
    assert content_of(run_dir / "robustness.json")["clean"]["false_alarm_rate"] is None


def test_all_scores_are_judged_on_the_same_images(cli: CLI, run_dir: Path):
    arguments = ("task=robustness", f"run_dir={run_dir}", "task.shifts=[blur]")
    assert cli(*arguments) == 0
    result = content_of(run_dir / "robustness.json")
    assert result["score"] == "SquaredError"  # the run's own, and so not among the others
    assert list(result["scores"]) == [
        "kl", "elbo", "smoothed_residual", "mahalanobis", "fused", "central_residual",
    ]  # fmt: skip
    assert cli(*arguments, "score=mahalanobis") == 0
    alone = content_of(run_dir / "robustness.json")
    among = result["scores"]["mahalanobis"]
    assert alone["clean"]["auroc"] == among["clean"]["auroc"]
    assert alone["shifts"]["blur"]["auroc"] == among["shifts"]["blur"]["auroc"]


def test_several_runs_give_mean_and_deviation(cli: CLI, run_dir: Path, tmp_path: Path):
    shutil.copytree(run_dir, tmp_path / "other")
    quick = ("task.shifts=[blur]", "task=robustness")
    assert cli(*quick, "run_dir=other") == 0
    path = tmp_path / "other" / "robustness.json"
    edited = content_of(path)
    clean = edited["clean"]["auroc"]
    edited["clean"]["auroc"] = clean + 0.2  # mean +0.1, deviation 0.2 / sqrt(2)
    path.write_text(json.dumps(edited))
    assert cli(*quick, f"run_dir={run_dir}", "task.with_runs=[other]") == 0
    table = (run_dir / "robustness.md").read_text()
    assert "AUROC over 2 runs" in table
    assert f"{clean + 0.1:.3f} ± 0.141" in table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "no sound robustness.json"),
        (lambda path: path.write_text("{"), "no sound robustness.json"),
        (lambda path: path.write_text(path.read_text().replace('"seed": 0', '"seed": 7')),
         "judged with seed=7, this run with 0"),
        (lambda path: path.write_text(path.read_text().replace('"blur"', '"fog"')),
         "shifts are fog, of this run blur"),
    ],
)  # fmt: skip
def test_runs_judged_in_another_way_are_not_averaged(
    cli: CLI,
    run_dir: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    change: Callable[[Path], object],
    message: str,
):
    shutil.copytree(run_dir, tmp_path / "other")
    quick = ("task.shifts=[blur]", "task=robustness")
    assert cli(*quick, "run_dir=other") == 0
    change(tmp_path / "other" / "robustness.json")
    assert cli(*quick, f"run_dir={run_dir}", "task.with_runs=[other]") == 1
    assert message in capfd.readouterr().out
    assert not (run_dir / "robustness.json").exists()


def test_a_run_on_volumes_is_refused(cli: CLI, run_3d: Path, capfd: pytest.CaptureFixture[str]):
    assert cli("task=robustness", f"run_dir={run_3d}") == 1
    assert "task=robustness: a BraTSDataModule cannot show its images" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shifts": ["blur", "fog"]}, r"task\.shifts=\['blur', 'fog'\]: fog is not .*gamma_0\.7"),
        ({"shifts": []}, r"task\.shifts=\[\]"),
        ({"seed": -1}, r"task\.seed=-1"),
        ({"alpha": 1.5}, r"task\.alpha=1\.5"),
    ],
)
def test_what_cannot_work_is_refused(arguments: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        Robustness(**arguments)

"""What task=report takes from an evaluated run."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from vaelab.errors import UserError
from vaelab.tasks.report import Report

from ..conftest import CLI


def write_scores(path: Path, rows: list[tuple[str, str, float]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("id", "label", "score"), *rows])
    return path


def test_the_gallery_keeps_the_worst_misses_and_false_alarms(tmp_path: Path):
    sick = [(f"sick{i}", "1", float(i)) for i in range(100)]
    normal = [(f"normal{i}", "0", float(i)) for i in range(100)]
    chosen = Report(max_cases=30)._choose(write_scores(tmp_path / "scores.csv", [*sick, *normal]))
    assert len(chosen) == 30
    assert {f"sick{i}" for i in range(10)} <= chosen
    assert {f"normal{i}" for i in range(90, 100)} <= chosen


def test_a_small_split_is_shown_whole(tmp_path: Path):
    rows = [(f"case{i}", "", float(i)) for i in range(7)]
    assert len(Report()._choose(write_scores(tmp_path / "scores.csv", rows))) == 7


def test_impossible_sizes_are_refused():
    with pytest.raises(UserError, match=r"task\.max_cases=0"):
        Report(max_cases=0)


def test_a_run_must_be_evaluated_before_it_is_reported(
    cli: CLI, run_2d: Path, capfd: pytest.CaptureFixture[str]
):
    assert cli("task=report", f"run_dir={run_2d}") == 1
    assert "task=evaluate" in capfd.readouterr().out

    assert cli("task=evaluate", f"run_dir={run_2d}") == 0
    assert cli("task=report", f"run_dir={run_2d}", "task.max_cases=3") == 0
    page = (run_2d / "report.html").read_text()
    assert "AUROC" in page
    assert "phantom_xray" in page  # the config
    auroc = json.loads((run_2d / "metrics.json").read_text())["detection"]["auroc"]
    assert f"{auroc:.4f}".rstrip("0").rstrip(".") in page


def test_the_viewer_has_the_proportions_of_the_voxels(cli: CLI, run_3d: Path):
    thick = "dataset.spacing=[12,6,24]"  # mm
    assert cli("task=evaluate", f"run_dir={run_3d}", thick) == 0
    assert cli("task=report", f"run_dir={run_3d}", thick) == 0
    page = (run_3d / "report.html").read_text()
    volumes = re.findall(r'class="volume">(.*?)</script>', page)
    assert volumes
    assert all(json.loads(volume)["spacing"] == [12, 6, 24] for volume in volumes)

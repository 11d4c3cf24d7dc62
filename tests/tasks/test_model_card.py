"""The card says what the run's own files say, and a hub can read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..conftest import CLI


def card_of(run: Path) -> tuple[dict[str, Any], str]:
    _, head, body = (run / "model_card.md").read_text().split("---\n", 2)
    return yaml.safe_load(head), body


@pytest.fixture
def judged(cli: CLI, run_2d: Path) -> Path:
    assert cli("task=evaluate", f"run_dir={run_2d}", "task.num_resamples=5") == 0
    return run_2d


def test_the_figures_are_those_of_the_run(cli: CLI, judged: Path) -> None:
    assert cli("task=model_card", f"run_dir={judged}", "task.license=apache-2.0") == 0
    head, body = card_of(judged)
    metrics = json.loads((judged / "metrics.json").read_text())
    (result,) = head["model-index"][0]["results"]
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values["roc_auc"] == metrics["detection_all"]["auroc"]
    assert values["mse"] == metrics["reconstruction"]["mse"]
    assert result["dataset"]["type"] == "phantom_xray"
    assert head["license"] == "apache-2.0"
    low, high = metrics["detection_all"]["intervals_95_percent"]["auroc"]
    assert f"{low:.3f} to {high:.3f}" in body
    for split in ("train", "val", "test"):
        rows = len((judged / "splits" / f"{split}.csv").read_text().splitlines()) - 1
        assert f"| {split} " in body
        assert any(f"{rows} |" in line for line in body.splitlines() if f"| {split} " in line)
    assert "Not a medical device" in body
    assert "has not been measured for this run" in body  # no shift was tried


def test_shifts_that_were_tried_are_on_the_card(cli: CLI, judged: Path) -> None:
    shifts = "task.shifts=[gamma_1.4,black_frame]"
    assert cli("task=robustness", f"run_dir={judged}", shifts, "~task.scores") == 0
    assert cli("task=model_card", f"run_dir={judged}") == 0
    found = json.loads((judged / "robustness.json").read_text())
    _, body = card_of(judged)
    assert f"{found['shifts']['black_frame']['auroc']:.3f}" in body
    assert "has not been measured for this run" not in body


def test_a_run_without_labels_says_that_detection_was_not_measured(cli: CLI, run_3d: Path) -> None:
    assert cli("task=evaluate", f"run_dir={run_3d}", "task.num_resamples=5") == 0
    assert cli("task=model_card", f"run_dir={run_3d}") == 0
    head, body = card_of(run_3d)
    assert "detection has not been measured" in body
    assert head["metrics"] == ["mse"]


def test_a_run_that_was_not_judged_has_no_card(
    cli: CLI, run_2d: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli("task=model_card", f"run_dir={run_2d}") == 1
    assert "evaluate the run first with task=evaluate" in capfd.readouterr().out
    assert not (run_2d / "model_card.md").exists()


def test_a_hub_reads_the_head_by_its_own_parser(cli: CLI, judged: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="pip install 'vaelab[dev]'")
    assert cli("task=model_card", f"run_dir={judged}") == 0
    card = hub.ModelCard.load(judged / "model_card.md")
    assert card.data.library_name == "vaelab"
    assert card.data.model_name == judged.name
    metrics = json.loads((judged / "metrics.json").read_text())
    by_type = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert by_type["roc_auc"] == metrics["detection_all"]["auroc"]
